"""Figures of records: they add up, and are those of a count by hand."""

import collections
import dataclasses

import numpy as np
from conftest import CODES, WORDS
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import records
from ttt_jax import chat
from ttt_jax.inspection import statistics

_PART = st.one_of(
  st.sampled_from([*WORDS, '你好', 'да']),
  st.lists(st.integers(0, CODES - 1), max_size=3).map(lambda codes: np.array(codes, np.int32)),
)
_PARTS = st.lists(_PART, min_size=1, max_size=3)
_EXAMPLE = st.tuples(_PARTS, _PARTS, st.sampled_from(['speak', 'answer', '', 7, None]))


def _record(template, number, example):
  asked, answered, task = example
  turns = [chat.Turn('user', asked), chat.Turn('assistant', answered)]
  return records.Record(f'r{number}', template.document(turns), {'task': task})


def _plain(found: statistics.Statistics) -> dict:
  """Everything in a form that can be compared; the hashes of records by their number."""
  values = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
  hashes = zip(*(array.tolist() for array in values.pop('hashes')))
  return values | {'codes': found.codes.tolist(), 'hashes': sorted(hashes)}


@settings(max_examples=50)
@given(st.lists(_EXAMPLE, max_size=12), st.data())
def test_statistics_of_parts_add_up_to_those_of_the_whole(assets, examples, data):
  numbered = [(i, _record(assets.template, i, e)) for i, e in enumerate(examples)]
  for i in data.draw(st.sets(st.sampled_from(range(len(examples))))) if examples else ():
    broken = numbered[i][1].document._replace(tokens=np.array([assets.vocabulary.mask]))
    numbered[i] = (i, numbered[i][1]._replace(document=broken))
  cut = data.draw(st.integers(0, len(numbered)))
  a, b = numbered[:cut], numbered[cut:]
  whole = _plain(statistics.of(numbered, assets))
  assert _plain(statistics.of(a, assets) + statistics.of(b, assets)) == whole
  assert _plain(statistics.of(b, assets) + statistics.of(a, assets)) == whole


@settings(max_examples=50)
@given(st.lists(_EXAMPLE, max_size=8))
def test_figures_are_those_of_a_count_by_hand(assets, examples):
  """The oracle counts in what the records were made of, not in their tokens."""
  numbered = [(i, _record(assets.template, i, e)) for i, e in enumerate(examples)]
  found = statistics.of(numbered, assets)
  codes = collections.Counter()
  lengths = {'prompt spans': collections.Counter(), 'response spans': collections.Counter()}
  tasks, scripts = collections.Counter(), collections.Counter()
  for asked, answered, task in examples:
    tasks[task if task in ('speak', 'answer') else statistics.UNNAMED] += 1
    written = ''.join(part for part in [*asked, *answered] if isinstance(part, str))
    scripts['Han'] += '你' in written
    scripts['Cyrillic'] += 'д' in written
    scripts['Latin'] += any(c.isascii() for c in written)
    for name, parts in zip(lengths, (asked, answered)):
      for part in parts:
        if not isinstance(part, str):
          lengths[name][len(part) + 1] += 1  # and its end
          codes.update(part.tolist())
  total = found.total
  assert {name: counts.records for name, counts in found.tasks.items()} == tasks
  assert {name: w.records for name, w in found.written.items()} == +scripts
  assert found.codes.tolist() == [codes[i] for i in range(CODES)]
  for name, expected in lengths.items():
    assert found.lengths[name] == expected
    kind = name.split()[0]
    assert getattr(total, f'{kind}_spans') == expected.total()
    frames = sum((length - 1) * n for length, n in expected.items())
    assert getattr(total, f'{kind}_frames') == frames
  tokens = [record.document.tokens for _, record in numbered]
  assert total.tokens == sum(map(len, tokens)) == total.text + total.audio
  assert total.audio == sum(n * count for c in lengths.values() for n, count in c.items())
  assert total.targets == sum(int(r.document.targets.sum()) for _, r in numbered)
  runs = found.lengths['text runs']
  assert sum(length * count for length, count in runs.items()) == total.text
  sizes = sorted((len(record.document.tokens), record.key) for _, record in numbered)
  assert list(found.shortest) == sizes[:5]
  assert [size for size, _ in found.longest] == [size for size, _ in sizes[::-1][:5]]


def test_instructions_are_no_language(assets):
  turns = [chat.Turn('system', ['speak']), chat.Turn('assistant', ['你好'])]
  record = records.Record('a', assets.template.document(turns), {})
  assert statistics.of([(0, record)], assets).written == {'Han': statistics.Letters(1, 2)}


def test_unsound_records_are_named_and_count_nowhere_else(assets, documents):
  wrong = documents[0].tokens.copy()
  wrong[3] = assets.vocabulary.size + 5
  numbered = [
    (0, records.Record('good', documents[0], {})),
    (1, records.Record('wrong', documents[0]._replace(tokens=wrong), {})),
    (2, records.Record('short', documents[0]._replace(targets=np.zeros(3, bool)), {})),
  ]
  found = statistics.of(numbered, assets)
  assert found.total.records == 1 and found.unsound == 2
  assert [(number, key) for number, key, _ in found.complaints] == [(1, 'wrong'), (2, 'short')]
  assert f'token {wrong[3]} at position 3' in found.complaints[0][2]


def test_hashes_tell_records_apart_and_see_equal_texts(assets):
  def hashed(role, *parts):
    document = assets.template.document([chat.Turn('user', parts), chat.Turn(role, ['one'])])
    return records.Record('k', document, {})

  low, high = np.array([1, 2]), np.array([3, 4, 5])
  examples = [
    hashed('assistant', 'one', low),
    hashed('assistant', 'one', low),
    hashed('assistant', 'one', high),
    hashed('assistant', 'two', low),
    hashed('assistant', 'one'),
  ]
  # The same tokens, of which others are learnt.
  other = examples[0].document.targets.copy()
  other[np.flatnonzero(other)[-1]] = False
  examples.append(examples[0]._replace(document=examples[0].document._replace(targets=other)))
  found = statistics.of(enumerate(examples), assets).hashes
  assert found.numbers.tolist() == list(range(6))
  whole, texts = found.documents.tolist(), found.texts.tolist()
  assert whole[0] == whole[1] and len(set(whole)) == 5
  assert texts[0] == texts[1] == texts[2] == texts[5] != texts[3]
  assert texts[4] == 0 and texts[3] != 0
