import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import packing


@given(st.lists(st.integers(1, 50), max_size=60))
def test_every_item_lies_in_one_bin_that_holds_it(lengths):
  bins = packing.fill_bins(lengths, 50)
  assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
  assert all(sum(lengths[i] for i in b) <= 50 for b in bins)


@settings(deadline=None)
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

  ours = len(packing.fill_bins(lengths, 12))
  assert ours <= best(tuple(sorted(lengths, reverse=True)), ()) + 1


def test_the_last_two_items_of_a_bin_are_chosen_together():
  # Largest first would put 5 beside 10 and leave 2 of 17 free; 3 + 4 fills it.
  bins = packing.fill_bins([10, 5, 4, 3], 17)
  assert sorted(map(sorted, bins)) == [[0, 2, 3], [1]]


def test_a_plan_is_a_function_of_its_arguments_and_leaves_out_what_is_too_long():
  lengths = np.random.default_rng(0).integers(1, 120, 500)
  plans = [packing.plan(lengths, 100, 64, np.random.default_rng(seed)) for seed in (1, 1, 2)]
  np.testing.assert_array_equal(plans[0].records, plans[1].records)
  np.testing.assert_array_equal(plans[0].offsets, plans[1].offsets)
  assert (plans[0].records != plans[2].records).any()
  np.testing.assert_array_equal(np.sort(plans[0].records), np.flatnonzero(lengths <= 100))


def test_rows_are_well_filled():
  lengths = np.random.default_rng(0).integers(40, 100, 4000)
  plan = packing.plan(lengths, 256, 4000, np.random.default_rng(0))
  assert lengths.sum() / (len(plan) * 256) > 0.965
