import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ttt_jax import mask


@st.composite
def rows(draw):
  """Documents of a row: for each, whether each position is text or which span holds it."""
  layouts = []
  for _ in range(draw(st.integers(1, 3))):
    runs = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=5))
    layouts.append(runs)
  return layouts


def spans_of(runs):
  """Spans of a document, two of which never touch: text stands between."""
  spans, start = [], 0
  for is_audio, size in runs:
    if is_audio:
      spans.append((start, start + size))
    start += size + 1
  return np.array(spans, int).reshape(-1, 2), start


def may_see(runs, q, k, block_size, causal):
  """The paper's words, token by token: causal, and both ways within a span (or block)."""
  if k <= q:
    return True
  for number, (start, end) in enumerate(spans_of(runs)[0]):
    if start <= q < end and start <= k < end:
      if causal[number]:
        return False
      if block_size is None:
        return True
      return (q - start) // block_size == (k - start) // block_size
  return False


@given(rows(), st.sampled_from([None, 1, 2, 3]), st.randoms())
def test_intervals_are_the_rule(layouts, block_size, random):
  documents, groups, start, end = [], [], [], []
  expected, offset = {}, 0
  for number, runs in enumerate(layouts):
    spans, length = spans_of(runs)
    causal = np.array([random.random() < 0.3 for _ in spans], bool)
    order = mask.order_groups(length, spans, block_size, causal)
    documents += [number] * length
    groups += order.tolist()
    start += [offset] * length
    end += (offset + mask.group_ends(order)).tolist()
    for q in range(length):
      for k in range(length):
        expected[offset + q, offset + k] = may_see(runs, q, k, block_size, causal)
    offset += length
  keys = np.arange(offset)
  by_interval = (keys >= np.array(start)[:, None]) & (keys < np.array(end)[:, None])
  by_rule = mask.visible(np.array(documents), np.array(groups))
  by_words = np.array(
    [[expected.get((q, k), False) for k in range(offset)] for q in range(offset)]
  )
  np.testing.assert_array_equal(by_interval, by_words)
  np.testing.assert_array_equal(by_rule, by_words)


def test_padding_sees_and_is_seen_by_nothing():
  seen = mask.visible(np.array([0, 0, -1]), np.array([0, 1, 0]))
  assert not seen[2].any() and not seen[:, 2].any()


def test_noisy_stream_sees_the_clean_past_and_itself():
  # One clean document of groups 0 1 1 2, and behind it a noisy copy of group 1.
  groups = np.array([0, 1, 1, 2, 1, 1])
  streams = np.array([0, 0, 0, 0, 1, 1])
  seen = mask.visible(np.zeros(6, int), groups, streams)
  assert seen[4].tolist() == [True, False, False, False, True, True]
  assert seen[3].tolist() == [True, True, True, True, False, False]
