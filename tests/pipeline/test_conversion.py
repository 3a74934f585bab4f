import json
import pathlib
import re

import numpy as np
import pytest
from conftest import CODES
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.converting import authors, conversion, data_config, manifest
from data_pipelines.items import Rejected
from data_pipelines.reading import sources
from data_pipelines.records import DataError, Record, check_record
from ttt_jax import assets as assets_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import external

SAMPLES = pathlib.Path(__file__).parent / 'samples'
MARKS = [*vocabulary_lib.TEXT_SPECIALS, *vocabulary_lib.AUDIO_SPECIALS]
MARKS += [f'<|audio_{n}|>' for n in (0, 7, CODES - 1, CODES, 10**30)]
MARKS += [
  '<|audio_',
  '|>',
  '<|end_of_',
  '<|x|>',
  'one',
  ' two',
  '\n',
  '\0',
  '日',
  '\u2028',
  '<|',
]


@pytest.fixture(scope='module')
def folder(assets, tmp_path_factory):
  folder = tmp_path_factory.mktemp('conversion')
  assets.save(folder / 'assets')
  codes = 16_384
  vocabulary = vocabulary_lib.Vocabulary.extend(assets.tokenizer, codes)
  theirs = external.External('theirs', codes)
  assets_lib.Assets(vocabulary, assets.tokenizer, theirs, {}).save(folder / 'theirs')
  return folder


def convert(listed, assets):
  pieces = sources.pieces(listed, 500)
  made = conversion.Conversion(str(assets))
  return list(made(one for piece in pieces for one in sources.read(piece)))


def lines(folder, *contents, task=''):
  path = folder / 'a.jsonl'
  path.write_bytes(
    b'\n'.join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in contents)
  )
  return convert([sources.Source(str(path), task=task)], folder / 'assets')


def test_samples_of_the_authors_are_read(folder):
  vocabulary = assets_lib.load(folder / 'theirs').vocabulary
  source = sources.Source(str(SAMPLES / 'asr_tts.json'), task='transcribe', data_type='IT')
  first, second = convert([source], folder / 'theirs')
  assert first.about['text'] == 'Every evening, the dogs in our neighbourhood are howling.'
  assert first.about['task'] == 'transcribe'
  spans = second.document.spans
  assert (spans[:, 1] - spans[:, 0]).tolist() == [9, 27, 27, 27]
  assert second.document.responses.tolist() == [False, True, True, True]
  ends = second.document.tokens[spans[:, 1] - 1].tolist()
  v = vocabulary
  assert ends == [v.end_prompt, v.end_inner, v.end_inner, v.end_last]
  (chat,) = convert([sources.Source(str(SAMPLES / 'text_chat.json'))], folder / 'theirs')
  assert not len(chat.document.spans) and chat.about == {'source': 'text_chat.json'}


def blocks(page):
  """The JSON values in a page, block by block."""
  for block in re.findall(r'```json\n(.*?)```', page, re.DOTALL):
    values, at = [], 0
    while block[at:].strip():
      at += len(block[at:]) - len(block[at:].lstrip())
      value, at = json.JSONDecoder().raw_decode(block, at)
      values.append(value)
    yield values


def test_the_page_shows_records_that_are_read(folder):
  page = pathlib.Path(__file__).parents[2] / 'docs' / 'data.md'
  theirs, (listed,), manifests = blocks(page.read_text(encoding='utf-8'))
  assert all(isinstance(one, Record) for one in lines(folder, *theirs)) and len(theirs) == 4
  (folder / 'list.json').write_text(json.dumps(listed))
  assert len(data_config.read_data_config(folder / 'list.json')) == 2
  for content in manifests:
    entry = manifest.parse(content)
    assert entry.audio and entry.said[-1].pattern == (13, 26)


def test_references_are_what_is_right_to_say(folder):
  spoken = 'one<|begin_of_quad|><|audio_1|><|end_of_audio_span_last|>'
  one = {'prompt': ' seven', 'response': spoken}
  again = {'messages': [{'role': r, 'content': 'x'} for r in ('user', 'assistant') * 2]}
  for task, text in (
    *(('transcribe', 'one'), ('answer', 'one'), ('caption', 'one'), ('classify', 'one')),
    *(('speak', 'seven'), ('chat', None), ('text_chat', None), ('', None)),
  ):
    single, several = lines(folder, one, again, task=task)
    assert single.about.get('text') == text
    assert 'text' not in several.about  # which of its answers would it be?
    assert single.about.get('task', '') == task


texts = st.lists(st.sampled_from(MARKS), max_size=6).map(''.join)
turns = st.lists(
  st.fixed_dictionaries(
    {'role': st.sampled_from(['system', 'user', 'assistant', 'tool', None])},
    optional={'content': texts},
  ),
  max_size=4,
)
contents = st.one_of(
  st.fixed_dictionaries({'text': texts}),
  st.fixed_dictionaries({'messages': turns}),
  st.fixed_dictionaries({'prompt': texts, 'response': texts}),
  st.fixed_dictionaries({'parts': st.lists(st.fixed_dictionaries({'text': texts}))}),
  st.dictionaries(
    st.sampled_from(
      ['messages', 'conversations', 'text', 'prompt', 'response', 'turns', 'parts']
    ),
    st.none() | st.integers() | texts | turns | st.lists(st.none() | texts),
    max_size=2,
  ),
  st.sampled_from([b'{', b'[]', b'\xff', b'{"text": "one two"', b'{"text": NaN}']),
)


@settings(max_examples=100)
@given(st.lists(contents, max_size=8))
def test_every_line_becomes_one_record_or_one_rejection(folder, assets, written):
  made = lines(folder, *written)
  assert len(made) == len(written)
  for line, one in enumerate(made, 1):
    if isinstance(one, Rejected):
      assert one.place == (str(folder / 'a.jsonl'), line)
      assert one.reason and len(one.excerpt) <= 200
    else:
      assert one.key == f'0/a.jsonl:{line}'
      check_record(one, assets.vocabulary)
      authors._check_spans(one.document.tokens, assets.vocabulary)
      assert not (one.document.tokens == assets.vocabulary.mask).any()


@settings(max_examples=100)
@given(st.lists(contents, min_size=1, max_size=4), st.data())
def test_any_damage_to_a_file_is_survived(folder, written, data):
  raw = b'\n'.join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in written)
  at = data.draw(st.integers(0, len(raw)))
  raw = raw[:at] + data.draw(st.binary(max_size=4)) + raw[at + data.draw(st.integers(0, 5)) :]
  for name in ('damaged.jsonl', 'damaged.json'):
    (folder / name).write_bytes(
      raw if name.endswith('l') else b'[' + raw.replace(b'\n', b',\n') + b']'
    )
    try:
      made = convert([sources.Source(str(folder / name))], folder / 'assets')
    except DataError as error:  # what the first bytes say it is
      assert name in str(error)
      continue
    for one in made:
      assert isinstance(one, Record) or (one.place.path.endswith(name) and one.place.line > 0)


@pytest.mark.parametrize('name', ['text', 'messages', 'turns'])
def test_deep_and_wide_values_are_rejected(folder, name):
  deep = b'{"%s": %s}' % (name.encode(), b'[' * 90 + b']' * 90)
  deeper = b'{"%s": %s}' % (name.encode(), b'[' * 900 + b']' * 900)
  number = b'{"%s": %s}' % (name.encode(), b'9' * 4000)
  good = {'text': 'one two'}
  made = lines(folder, good, deep, deeper, number, good)
  assert [isinstance(one, Record) for one in made] == [True, False, False, False, True]
  assert [one.place.line for one in made[1:4]] == [2, 3, 4]
  assert 'nested too deeply' in made[2].reason


def test_a_plan_names_tasks_and_configs(folder):
  (folder / 'in').mkdir(exist_ok=True)
  for name in ('a.jsonl', 'b=c.jsonl', 'speak=d.jsonl'):
    (folder / 'in' / name).write_text('{"prompt": "one", "response": "two"}')
  config = [{'path': 'a.jsonl', 'task': 'answer'}]
  (folder / 'in' / 'data.json').write_text(json.dumps(config))
  made = conversion.Conversion(str(folder / 'assets'))
  paths = [f'speak={folder}/in/a.jsonl', f'{folder}/in/b=c.jsonl']
  pieces = conversion.plan(paths, [str(folder / 'in' / 'data.json')], 100)
  got = [one for piece in pieces for one in made(sources.read(piece))]
  assert [one.about.get('task') for one in got] == ['speak', None, 'answer']
  assert [one.key for one in got] == ['0/a.jsonl:1', '1/b=c.jsonl:1', '2/a.jsonl:1']
  with pytest.raises(DataError, match='nothing to read'):
    conversion.plan([], [], 100)
  np.testing.assert_array_equal(got[0].document.tokens, got[2].document.tokens)
