"""Intervals against scipy's, and against what is known in closed form."""

import numpy as np
import pytest
import scipy.stats

from ttt_jax.evaluation import bootstrap, text_metrics

RESAMPLES = 20_000


def test_of_an_accuracy_draws_are_binomial():
  right = np.repeat([1.0, 0.0], [30, 10])
  counts = np.stack([right, np.ones(40)], 1)
  found = bootstrap.interval(counts, text_metrics.ratio, RESAMPLES, 0.9, seed=1)
  assert found.value == 0.75
  low, high = scipy.stats.binom.ppf([0.05, 0.95], 40, 0.75) / 40
  assert (found.low, found.high) == pytest.approx((low, high), abs=0.0251)


def test_of_a_ratio_they_are_those_of_scipy():
  rng = np.random.default_rng(0)
  words = rng.integers(1, 12, 60).astype(float)
  counts = np.stack([rng.binomial(words.astype(int), 0.2).astype(float), words], 1)
  ours = bootstrap.interval(counts, text_metrics.ratio, RESAMPLES, 0.95, seed=1)
  theirs = scipy.stats.bootstrap(
    (counts[:, 0], counts[:, 1]),
    lambda a, b, axis: a.sum(axis) / b.sum(axis),
    paired=True,
    vectorized=True,
    method='percentile',
    n_resamples=RESAMPLES,
    rng=np.random.default_rng(2),
  ).confidence_interval
  width = theirs.high - theirs.low
  assert ours.value == counts[:, 0].sum() / counts[:, 1].sum()
  assert abs(ours.low - theirs.low) < 0.04 * width
  assert abs(ours.high - theirs.high) < 0.04 * width


def test_differences_are_taken_on_the_same_draws():
  rng = np.random.default_rng(0)
  base = rng.normal(0, 10, 50)
  first = np.stack([base, np.ones(50)], 1)
  second = np.stack([base + rng.normal(0.5, 0.1, 50), np.ones(50)], 1)
  found = bootstrap.difference(second, first, text_metrics.ratio, RESAMPLES, 0.95, seed=1)
  apart = second[:, 0] - first[:, 0]
  error = apart.std() / 50**0.5
  assert found.value == pytest.approx(apart.mean()) and found.p == 0
  # By themselves the two differ by little beside their spread, 10 / sqrt(50).
  assert found.low == pytest.approx(apart.mean() - 1.96 * error, abs=0.2 * error)
  assert found.high == pytest.approx(apart.mean() + 1.96 * error, abs=0.2 * error)
  back = bootstrap.difference(first, second, text_metrics.ratio, RESAMPLES, 0.95, seed=1)
  assert (back.value, back.low, back.high) == pytest.approx(
    (-found.value, -found.high, -found.low)
  )


def test_chance_is_told_by_p():
  rng = np.random.default_rng(3)
  apart = rng.normal(0.2, 1, 40)
  zeros = np.stack([np.zeros(40), np.ones(40)], 1)
  counts = np.stack([apart, np.ones(40)], 1)
  found = bootstrap.difference(counts, zeros, text_metrics.ratio, RESAMPLES, 0.95, seed=1)
  z = abs(apart.mean()) / (apart.std() / 40**0.5)
  assert found.p == pytest.approx(2 * scipy.stats.norm.sf(z), abs=0.02)
  same = bootstrap.difference(zeros, zeros, text_metrics.ratio, 100, 0.95, seed=1)
  assert same == (0, 0, 0, 1)


def test_intervals_depend_on_the_seed_alone_however_many_fit_at_a_time(monkeypatch):
  rng = np.random.default_rng(0)
  counts = rng.random((7, 2))
  whole = bootstrap.interval(counts, text_metrics.ratio, 50, 0.9, seed=4)
  monkeypatch.setattr(bootstrap, '_AT_A_TIME', 20)
  assert bootstrap.interval(counts, text_metrics.ratio, 50, 0.9, seed=4) == whole
  assert bootstrap.interval(counts, text_metrics.ratio, 50, 0.9, seed=5) != whole
