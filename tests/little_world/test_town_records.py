import numpy as np

from data_pipelines import records
from data_pipelines.little_world import prepare, town
from ttt_jax.codecs import audio_io


def test_a_town_has_answers_of_two_spans_and_their_speech(tmp_path):
  settings = prepare.Settings(
    world='town', voices=1, strings=4, tests=2, codes=32, frames=4, seed=0, fit_clips=20
  )
  prepare.prepare(tmp_path / 'data', settings)
  assert prepare.recogniser(tmp_path / 'data') == f'pocketsphinx:{tmp_path}/data/grammar.jsgf'
  source = records.Source(tmp_path / 'data', 'test')
  found = [source[i] for i in range(len(source))]
  answers = [one for one in found if one.about['task'] == 'answer']
  assert len(answers) == len(town.NAMES)
  assert {one.about['kind'] for one in found} == {'sentence', 'question', 'answer'}
  for one in answers:
    assert one.document.responses.tolist() == [False, True, True]
    wave, rate = audio_io.read_wav(tmp_path / 'data' / one.about['audio'])
    spans = one.document.spans[one.document.responses]
    codes = sum(int(end - start) - 1 for start, end in spans)
    np.testing.assert_allclose(codes, len(wave) / rate * 25, atol=3)
    said = [source.assets.tokenizer.decode(one.document.tokens[a:b]) for a, b in texts(one)]
    assert ' '.join(said) == one.about['text']


def texts(record):
  """Where the written pieces of the answer lie: before the begins of its spans."""
  v_start = record.document.spans[record.document.responses]
  first = int(np.flatnonzero(record.document.targets)[0])
  ends = [int(start) - 1 for start, _ in v_start]
  starts = [first, *(int(end) for _, end in v_start[:-1])]
  return list(zip(starts, ends))
