"""From a checkpoint of Hugging Face and records in the authors' format to a trained model."""

import json

import numpy as np
import sources
from conftest import make_config

from data_pipelines import records
from data_pipelines.converting import authors
from ttt_jax import assets as assets_lib
from ttt_jax import parameters
from ttt_jax.conversion import from_hf
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder
from ttt_jax.training import train

CODES = 24


def conversations():
  """Three tasks in the authors' form: transcribe, speak, answer."""
  rng = np.random.default_rng(0)

  def audio(begin, end, size=9):
    codes = ''.join(f'<|audio_{code}|>' for code in rng.integers(0, CODES, size))
    return f'<|{begin}|>{codes}<|{end}|>'

  heard, said = ('begin_of_audio', 'end_of_audio'), ('begin_of_quad', 'end_of_audio_span_last')
  inner = audio('begin_of_audio', 'end_of_audio_new', 6)
  for system, user, answer in (
    ('transcribe', audio(*heard), 'the quick brown fox'),
    ('speak', 'jumps over it', 'jumps over it' + audio(*said)),
    ('answer', audio(*heard), f'brown{inner} fox' + audio(*said)),
  ):
    turns = (('system', system), ('user', user), ('assistant', answer))
    yield {'messages': [{'role': role, 'content': text} for role, text in turns]}


def test_records_are_learnt_by_heart(tmp_path):
  source = sources.save(sources.make('qwen2'), tmp_path / 'source')
  settings = from_hf.Settings(audio_codebook=CODES)
  model = from_hf.convert(source, tmp_path / 'start', settings, make_config()).model
  assets = assets_lib.load(tmp_path / 'start' / assets_lib.DIRECTORY)

  def examples():
    for number, content in enumerate(conversations()):
      yield records.Record(f'{number}', authors.compose(content, assets.template), {})

  records.write(tmp_path / 'data', {'train': examples}, assets)
  shape = {f'model__{key}': value for key, value in vars(model).items()}
  config = make_config(
    **shape,
    init__checkpoint=str(tmp_path / 'start'),
    data__directory=str(tmp_path / 'data'),
    optimizer__learning_rate=1e-2,
    train__steps=120,
    train__log_every=10,
    mesh__data=4,
    mesh__fsdp=2,
  )
  state = train.train(config, tmp_path / 'run')
  last = json.loads((tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()[-1])
  assert last['text_loss'] < 0.1 and last['audio_loss'] < 0.1
  # What was learnt is said: the prompts of the records are answered as the records do.
  source_of_records = records.Source(tmp_path / 'data', 'train')
  params = parameters.restore(tmp_path / 'run')
  assert int(state.step) == 120
  answers = []
  for number in range(3):
    document = source_of_records[number].document
    first = int(np.argmax(document.targets))
    answers.append((document.tokens[:first], document.tokens[first:]))
  network = transformer.Transformer(config.model, assets.vocabulary.size)
  speaker = decoder.Decoder(network, params, assets.vocabulary, config.sampling, config.mask)
  for (_, wanted), got in zip(answers, speaker([prompt for prompt, _ in answers])):
    said = got.tokens.tolist()
    assert said == wanted.tolist()[: len(said)] and got.complete
