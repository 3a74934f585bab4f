import collections
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import records
from ttt_jax.inspection import figures, statistics


@given(st.lists(st.integers(1, 3) | st.integers(1, 10**6), min_size=1, max_size=300))
def test_distribution_says_what_the_lengths_are(lengths):
  found = figures.distribution(collections.Counter(lengths))
  assert found['count'] == len(lengths)
  assert found['mean'] == pytest.approx(np.mean(lengths))
  assert (found['least'], found['most']) == (min(lengths), max(lengths))
  for name, percent in (('median', 50), ('p90', 90), ('p99', 99)):
    assert 100 * sum(n <= found[name] for n in lengths) >= percent * len(lengths)
    assert 100 * sum(n < found[name] for n in lengths) < percent * len(lengths)
  for start, end, count in found['bins']:
    assert count == sum(start <= n <= end for n in lengths)
  assert sum(count for _, _, count in found['bins']) == len(lengths)
  edges = [edge for start, end, _ in found['bins'] for edge in (start, end + 1)]
  assert edges == sorted(edges) and edges[1:-1:2] == edges[2::2]
  assert len(found['bins']) <= 25


def test_a_long_tail_does_not_flatten_a_histogram():
  found = figures.distribution({n: 1000 for n in range(50, 150)} | {10**6: 1})
  assert found['bins'][-1][1:] == [10**6, 1]
  assert sum(count > 0 for _, _, count in found['bins']) > 10


def test_perplexity_of_codes_that_are_all_alike_is_their_number():
  found = figures.codes(np.array([0, 7, 7, 0, 7, 7]))
  assert found['perplexity'] == pytest.approx(4) and found['entropy_bits'] == pytest.approx(2)
  assert (found['size'], found['used'], found['occurrences']) == (6, 4, 28)


def test_codes_are_ranked():
  found = figures.codes(np.array([3, 0, 5, 1]))
  assert found['most'][0] == {'code': 2, 'count': 5}
  assert found['least'][0] == {'code': 3, 'count': 1}
  share = np.array([3, 5, 1]) / 9
  assert found['entropy_bits'] == pytest.approx(-sum(p * math.log2(p) for p in share))
  assert figures.codes(np.zeros(4, int))['perplexity'] == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=30))
def test_duplicates_against_a_search_by_hand(pairs):
  """A pair stands for a record: its text (0: no audio) and its whole."""
  wholes = [(text, whole) for text, whole in pairs]
  numbers = [100 + i for i in range(len(pairs))]
  found = figures.duplicates(
    statistics.Hashes(
      np.array(numbers, np.int64),
      np.array([10 * text + whole for text, whole in pairs], np.uint64),
      np.array([text for text, _ in pairs], np.uint64),
    ),
    str,
  )
  groups = collections.Counter(wholes)
  several = {pair: n for pair, n in groups.items() if n > 1}
  assert found['groups'] == len(several)
  assert found['records'] == sum(several.values())
  assert found['surplus'] == len(pairs) - len(groups)
  copies = [group['copies'] for group in found['largest']]
  assert copies == sorted(several.values(), reverse=True)[:10]
  for group in found['largest']:
    same = {pairs[int(key) - 100] for key in group['keys']}
    assert len(same) == 1 and len(group['keys']) == min(5, group['copies'])
  readings = collections.defaultdict(set)
  for text, whole in pairs:
    if text:
      readings[text].add(whole)
  spoken = [len(found_) for found_ in readings.values() if len(found_) > 1]
  assert found['texts_of_several_readings'] == len(spoken)
  assert found['readings_of_those'] == sum(spoken)


def test_hours_need_a_rate_and_all_is_json(assets, documents):
  numbered = [(i, records.Record(f'k{i}', d, {})) for i, d in enumerate(documents)]
  found = statistics.of(numbered, assets)
  known = figures.figures(found, 12.5, 40, str)
  total = found.total
  assert known['total']['prompt_hours'] == pytest.approx(total.prompt_frames / 12.5 / 3600)
  assert known['total']['response_hours'] == pytest.approx(total.response_frames / 45_000)
  assert known['too_long'] == sum(len(d.tokens) > 40 for d in documents)
  assert known['too_long_for']['256'] == sum(len(d.tokens) > 256 for d in documents)
  unknown = figures.figures(found, None, 40, str)
  assert unknown['total']['prompt_hours'] is None
  assert json.loads(json.dumps(known)) == known
