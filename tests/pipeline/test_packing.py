import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.stream import packing


def fill(lengths, capacity):
  """The bins as lists of lengths."""
  counts = np.bincount(lengths, minlength=capacity + 1).tolist()
  sizes, ends = packing.fill_bins(counts, capacity)
  assert not any(counts)
  return [sizes[start:end] for start, end in zip([0, *ends], ends)]


@given(st.lists(st.integers(1, 50), max_size=60))
def test_every_item_lies_in_one_bin_that_holds_it(lengths):
  bins = fill(np.array(lengths, int), 50)
  assert sorted(itertools.chain(*bins)) == sorted(lengths)
  assert all(0 < sum(sizes) <= 50 for sizes in bins)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7))
def test_few_items_take_at_most_one_bin_more_than_the_best_packing(lengths):
  def best(rest, rooms):
    if not rest:
      return len(rooms)
    length, counts = rest[0], []
    for i in range(len(rooms)):
      if rooms[i] >= length:
        changed = rooms[:i] + (rooms[i] - length,) + rooms[i + 1 :]
        counts.append(best(rest[1:], changed))
    return min([*counts, best(rest[1:], (*rooms, 12 - length))])

  assert len(fill(lengths, 12)) <= best(tuple(sorted(lengths, reverse=True)), ()) + 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=25))
def test_each_choice_is_the_best_by_trying_all(lengths):
  waiting = sorted(lengths)
  for sizes in fill(lengths, 30):
    assert sizes[0] == waiting.pop()
    room, at = 30 - sizes[0], 1
    while at < len(sizes):
      singles = [s for s in waiting if s <= room]
      pairs = [sum(p) for p in itertools.combinations(waiting, 2) if sum(p) <= room]
      few = room < 3 * waiting[0]  # no three fit
      wanted = max([*singles, *pairs]) if few else max(singles)
      took = 1 if sizes[at] == wanted else 2
      taken = sizes[at : at + took]
      assert sum(taken) == wanted
      for size in taken:
        waiting.remove(size)
      room, at = room - wanted, at + took
    assert not waiting or waiting[0] > room
  assert not waiting


def test_the_last_two_items_of_a_bin_are_chosen_together():
  # Largest first would put 5 beside 10 and leave 2 of 17 free; 3 + 4 fills it.
  assert sorted(map(sorted, fill([10, 5, 4, 3], 17))) == [[3, 4, 10], [5]]


@given(st.lists(st.integers(1, 40), max_size=50), st.integers(0, 9))
def test_a_pack_is_a_function_of_its_arguments_and_holds_each_item_once(lengths, seed):
  lengths = np.array(lengths, int)
  one, two = (packing.pack(lengths, 40, np.random.default_rng(seed)) for _ in range(2))
  for a, b in zip(one, two):
    np.testing.assert_array_equal(a, b)
  assert sorted(one.items) == list(range(len(lengths)))
  assert one.offsets[0] == 0 and one.offsets[-1] == len(lengths)
  for start, end in itertools.pairwise(one.offsets):
    assert 0 < lengths[one.items[start:end]].sum() <= 40


def test_equally_long_items_and_rows_are_shuffled():
  lengths = np.repeat([30, 10], 200)
  one, two = (packing.pack(lengths, 40, np.random.default_rng(seed)) for seed in (1, 2))
  assert (one.items != two.items).any()
  partners = one.items[lengths[one.items] == 10]
  assert abs(np.corrcoef(partners, np.arange(200))[0, 1]) < 0.3
  mixed = packing.pack(np.repeat([40, 20], 200), 40, np.random.default_rng(0))
  assert len(set(np.diff(mixed.offsets)[:40])) == 2  # the longest would be packed first


def test_lengths_that_fit_nowhere_are_a_defect():
  for length in (0, 41):
    with pytest.raises(ValueError, match='rows of 40'):
      packing.pack(np.array([3, length]), 40, np.random.default_rng(0))


@pytest.mark.parametrize('mean', [660, 1800])
def test_rows_are_filled_to_99_percent(mean):
  drawn = np.random.default_rng(0).lognormal(np.log(mean) - 0.5**2 / 2, 0.5, 8192)
  lengths = drawn[drawn <= 4096].astype(int)
  packed = packing.pack(lengths, 4096, np.random.default_rng(0))
  assert lengths.sum() / (len(packed) * 4096) > 0.99
