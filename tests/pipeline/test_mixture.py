from fractions import Fraction

import numpy as np
import pytest
from conftest import CODES, make_config
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import records
from data_pipelines.stream import mixture
from ttt_jax import assets as assets_lib
from ttt_jax import checks
from ttt_jax.codecs import external

weights = st.lists(st.floats(0, 1000), min_size=1, max_size=9).filter(lambda w: max(w) > 1e-6)


@given(weights, st.integers(0, 10**12), st.integers(0, 2000))
def test_every_stretch_has_the_shares_within_the_bound(parts, start, size):
  parts = list(map(Fraction, parts))
  bound = 0.5 + sum(1 / n for n in range(1, len(parts))) / 2
  before, after = mixture.apportion(start, parts), mixture.apportion(start + size, parts)
  assert sum(before) == start and sum(after) == start + size
  for a, b, part in zip(before, after, parts):
    share = part / sum(parts)
    assert abs(a - start * share) <= bound
    assert abs(b - a - size * share) <= 2 * bound
    assert b >= a and (part or b == 0)


@given(weights, st.integers(0, 10**9))
def test_each_record_comes_from_one_data_set(parts, number):
  parts = list(map(Fraction, parts))
  steps = np.diff([mixture.apportion(number + i, parts) for i in range(4)], axis=0)
  assert (np.sort(steps, axis=1)[:, :-1] == 0).all() and (steps.max(1) == 1).all()


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.integers(1, 5))
def test_without_weights_each_epoch_holds_each_record_once(sizes, epochs):
  parts = mixture.shares(make_config().data, sizes)
  whole = mixture.apportion(epochs * sum(sizes), parts)
  assert whole == [epochs * size for size in sizes]


def test_a_temperature_that_leaves_all_to_the_largest_set_is_refused():
  with pytest.raises(checks.ConfigError, match='temperature is 0.01, which is too low'):
    mixture.shares(make_config(data__temperature=0.01).data, [100, 100_000])


def test_a_temperature_flattens_the_shares():
  parts = mixture.shares(make_config(data__temperature=2.0).data, [100, 10_000])
  assert [float(part / sum(parts)) for part in parts] == pytest.approx([1 / 11, 10 / 11])
  settings = {'data__directory': 'a,b', 'data__weights': (3.0, 1.0)}
  assert mixture.apportion(100, mixture.shares(make_config(**settings).data, [1, 1])) == [
    75,
    25,
  ]


def test_data_sets_that_mean_other_ids_are_refused(toy_data, assets, documents, tmp_path):
  other = assets._replace(codec=external.External('another', CODES))
  record = records.Record('r', documents[0], {})
  records.write(tmp_path / 'b', {'train': lambda: iter([record])}, other)
  data = make_config(data__directory=f'{toy_data}, {tmp_path / "b"}').data
  said = (
    f'{toy_data} and {tmp_path}/b cannot be mixed: the codec of the first is .* of the second'
  )
  with pytest.raises(assets_lib.AssetError, match=said):
    mixture.open_all(data)
