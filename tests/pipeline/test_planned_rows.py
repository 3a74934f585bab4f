import collections
import itertools
import pathlib
import pickle
import tempfile
import types

import numpy as np
import pytest
from conftest import make_config
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import records
from data_pipelines.stream import plan as plan_lib


@pytest.fixture(scope='module')
def folder():
  with tempfile.TemporaryDirectory() as made:
    yield pathlib.Path(made)


def sources_of(folder, sizes, row_length=64):
  """Data sets of random shapes, without the records; every seventh record is too long."""
  made = []
  for number, size in enumerate(sizes):
    rng = np.random.default_rng([number, size])
    lengths = rng.integers(20, row_length, size)
    lengths[3::7] += row_length
    codes = rng.integers(0, 15, size)
    shapes = records.Shapes(lengths, lengths - 18, codes)
    made.append(
      types.SimpleNamespace(
        shapes=shapes,
        directory=folder,
        cache=folder / 'cache',
        split='train',
        fingerprint=f'{number}-{size}',
      )
    )
  return made


def plan_of(folder, sizes, seed=0, **changes):
  names = ','.join(f'set{number}' for number in range(len(sizes)))
  changes = {'data__directory': names, 'data__row_length': 64, 'data__batch_size': 2} | changes
  config = make_config(**changes)
  how = config.data, config.mask, config.objective, seed
  return plan_lib.Plan(sources_of(folder, sizes), *how)


def equal(a, b):
  return all(np.array_equal(x, y) for x, y in zip(a, b))


mixtures = st.fixed_dictionaries(
  {
    'sizes': st.lists(st.integers(1, 40), min_size=1, max_size=4),
    'data__window': st.integers(1, 30),
    'seed': st.integers(0, 3),
  }
)


@st.composite
def weighted(draw):
  mixture = draw(mixtures)
  parts = st.tuples(*[st.integers(0, 5).map(float)] * len(mixture['sizes']))
  mixture['data__weights'] = draw(st.just(()) | parts.filter(any))
  return mixture


def dealt(plan, windows):
  """For each data set, record numbers by place."""
  found = [{} for _ in plan.decks]
  for number in range(windows):
    window = plan.window(number)
    for which, place, record in zip(window.sets, window.places, window.records):
      assert place not in found[which]
      found[which][int(place)] = int(record)
  return found


def assert_epochs(plan, folder, sizes, found):
  """Nothing is lost or comes twice within an epoch."""
  for source, deck, by_place in zip(sources_of(folder, sizes), plan.decks, found):
    fitting = set(np.flatnonzero(source.shapes.lengths <= 64).tolist())
    assert len(deck) == len(fitting) and deck.too_long == len(source.shapes[0]) - len(fitting)
    assert sorted(by_place) == list(range(len(by_place)))
    for start in range(0, len(by_place), len(deck)):
      epoch = [by_place[i] for i in range(start, min(start + len(deck), len(by_place)))]
      assert len(set(epoch)) == len(epoch) and set(epoch) <= fitting


@settings(max_examples=20)
@given(weighted())
def test_each_record_comes_once_an_epoch_and_fits_into_its_row(folder, mixture):
  plan, sizes = plan_of(folder, **mixture), mixture['sizes']
  assert_epochs(plan, folder, sizes, dealt(plan, 12))
  lengths = [source.shapes.lengths for source in sources_of(folder, sizes)]
  for number in range(12):
    window = plan.window(number)
    assert window.first == number * plan.window_size and len(window.sets) == plan.window_size
    whole = [lengths[s][r] for s, r in zip(window.sets, window.records)]
    taken = np.where(window.cuts > 0, window.cuts, whole)
    assert (taken <= whole).all() and (np.diff(window.offsets) > 0).all()
    assert (np.add.reduceat(taken, window.offsets[:-1]) <= 64).all()


@settings(max_examples=20)
@given(weighted(), st.integers(1, 12), st.integers(1, 12))
def test_any_stretch_of_windows_has_the_shares(folder, mixture, start, count):
  plan = plan_of(folder, **mixture)
  found = collections.Counter()
  for number in range(start, start + count):
    found.update(plan.window(number).sets.tolist())
  parts = mixture['data__weights'] or [len(deck) for deck in plan.decks]
  for which, part in enumerate(parts):
    wanted = part / sum(parts) * count * plan.window_size
    assert abs(found[which] - wanted) < 3  # two ends, of up to 1.42 each
    assert found[which] == plan.counts(start + count)[which] - plan.counts(start)[which]


@settings(max_examples=20)
@given(weighted(), st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_rows_do_not_depend_on_how_they_are_reached(folder, mixture, rows):
  walked = plan_of(folder, **mixture)
  starts = [0, *itertools.accumulate(len(walked.window(n)) for n in range(301))]
  for row in rows:
    plan = plan_of(folder, **mixture)
    number, within = plan.locate(row)
    assert starts[number] + within == row and 0 <= within < len(plan.window(number))
    assert equal(plan.window(number), walked.window(number))
    copied = pickle.loads(pickle.dumps(plan))
    assert copied.locate(row) == (number, within)


@settings(max_examples=20)
@given(weighted(), st.data())
def test_changed_weights_take_over_and_repeat_nothing(folder, mixture, data):
  sizes = mixture['sizes']
  parts = st.tuples(*[st.integers(0, 5).map(float)] * len(sizes)).filter(any)
  steps = sorted(data.draw(st.sets(st.integers(1, 60), min_size=1, max_size=3)))
  changes = tuple((step, data.draw(parts)) for step in steps)
  before, after = plan_of(folder, **mixture), plan_of(folder, data__changes=changes, **mixture)
  assert_epochs(after, folder, sizes, dealt(after, 30))
  # By hand: which weights hold in each window, from where it starts.
  first = mixture['data__weights'] or tuple(len(deck) for deck in after.decks)
  row, held = 0, []
  for number in range(30):
    held.append(([first] + [w for step, w in changes if 2 * step <= row])[-1])
    if held[-1] is first:
      assert equal(before.window(number), after.window(number))
    row += len(after.window(number))
  for weights, group in itertools.groupby(range(30), lambda number: held[number]):
    numbers = list(group)
    sets = np.concatenate([after.window(number).sets for number in numbers])
    for which, part in enumerate(weights):
      wanted = part / sum(weights) * len(numbers) * after.window_size
      assert abs((sets == which).sum() - wanted) < 3


def test_a_change_far_away_leaves_what_is_on_disk_of_use(folder):
  sizes = [23, 31]
  plan_of(folder, sizes, seed=77, data__window=10).locate(50)
  known = set((folder / 'cache').iterdir())
  plan_of(folder, sizes, seed=77, data__window=10, data__changes=((10**6, (1.0, 0.0)),)).locate(
    50
  )
  assert set((folder / 'cache').iterdir()) == known
  plan_of(folder, sizes, seed=77, data__window=10, data__changes=((3, (1.0, 0.0)),)).locate(50)
  assert set((folder / 'cache').iterdir()) > known


def test_numbers_of_rows_are_kept_and_damaged_files_made_again(folder):
  known = set((folder / 'cache').glob('plan-*.npz'))
  wanted = plan_of(folder, [37], seed=5).locate(100)
  (path,) = set((folder / 'cache').glob('plan-*.npz')) - known
  stored = np.load(path)['rows']
  np.savez(path, rows=np.ones_like(stored))
  wrong = plan_of(folder, [37], seed=5)
  assert wrong.locate(5) == (5, 0)
  with pytest.raises(records.DataError, match='window 5 .* to have 1 rows, but has [2-9]'):
    wrong.window(5)
  path.write_bytes(b'damaged')
  assert plan_of(folder, [37], seed=5).locate(100) == wanted


@pytest.mark.parametrize(
  'change',
  [
    {'seed': 1},
    {'data__window': 9},
    {'data__row_length': 63},
    {'data__weights': (1.0, 2.0)},
    {'data__temperature': 3.0},
    {'objective__sst': 0.1},
    {'data__changes': ((1, (1.0, 3.0)),)},
    {'sizes': [29, 30]},
  ],
)
def test_what_changes_rows_is_another_file(folder, change):
  settings = {'sizes': [30, 29], 'data__window': 10}
  plan_of(folder, **settings).locate(0)
  known = set((folder / 'cache').iterdir())
  plan_of(folder, **settings).locate(0)
  assert set((folder / 'cache').iterdir()) == known
  plan_of(folder, **settings | change).locate(0)
  assert set((folder / 'cache').iterdir()) > known


def test_orders_and_cuts_differ_between_epochs_seeds_and_equal_sets(folder):
  plan, other = plan_of(folder, [40, 40]), plan_of(folder, [40, 40], seed=1)
  size = len(plan.decks[0])
  epochs = [deck.deal(e * size, (e + 1) * size) for deck in plan.decks for e in range(2)]
  epochs.append(other.decks[0].deal(0, size))
  for one, two in itertools.combinations(epochs, 2):
    assert (one.records != two.records).any() and (one.cuts != two.cuts).any()


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 60))
def test_what_is_dealt_does_not_depend_on_the_stretch(folder, first, skip, size):
  (deck,) = plan_of(folder, [40]).decks
  whole, part = (
    deck.deal(first, first + skip + size),
    deck.deal(first + skip, first + skip + size),
  )
  for a, b in zip(whole, part):
    np.testing.assert_array_equal(a[skip:], b)


def test_epochs_take_about_the_rows_that_are_said(folder):
  settings = {'data__window': 200, 'data__weights': (3.0, 1.0, 0.0), 'objective__sst': 0.0}
  plan = plan_of(folder, [300, 200, 9], data__row_length=640, **settings)
  for deck, which, (share, said) in zip(plan.decks, range(2), plan.epochs()):
    assert share == (0.75, 0.25)[which]
    windows = round(len(deck) / share / 200)
    taken = sum(len(plan.window(number)) for number in range(windows))
    assert taken == pytest.approx(said, rel=0.1)
  assert plan.epochs()[2] == (0.0, float('inf'))


def test_data_sets_that_fit_nothing_are_named(folder):
  with pytest.raises(
    records.DataError, match="none of the 30 records of 'train' .*row_length=4"
  ):
    plan_of(folder, [30, 5], data__row_length=4)
