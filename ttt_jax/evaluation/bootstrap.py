"""Intervals of confidence, by resampling the items that were judged.

The percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13):
items are drawn with replacement as often as there are, the figure is made of each such draw,
and the interval lies between its quantiles. Two models are compared on the same draws of the
same items (the paired bootstrap; Koehn 2004, Statistical Significance Tests for Machine
Translation Evaluation).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_AT_A_TIME = 2**22  # numbers of how often items are drawn that exist at a time

Figure = Callable[[np.ndarray], float]


class Interval(NamedTuple):
  """A figure and its bounds."""

  value: float
  low: float
  high: float


class Difference(NamedTuple):
  """How much a figure is above another one's.

  Attributes:
    value: the difference.
    low: lower bound.
    high: upper bound.
    p: twice the share of draws in which the difference is not on the side of `value`, at most
      1: how easily chance makes such a difference.
  """

  value: float
  low: float
  high: float
  p: float


def interval(
  counts: np.ndarray, figure: Figure, resamples: int, confidence: float, seed: int
) -> Interval:
  """The figure of some items, with its bounds.

  Args:
    counts: float64 [N, K], what each item adds to the sums, N > 0.
    figure: of sums, float64 [K].
    resamples: how many draws, above 0.
    confidence: of the interval, between 0 and 1.
    seed: of the draws.
  """
  drawn = np.array([figure(sums) for sums in _sums(counts, resamples, seed)])
  return Interval(figure(counts.sum(0)), *_bounds(drawn, confidence))


def difference(
  counts: np.ndarray,
  others: np.ndarray,
  figure: Figure,
  resamples: int,
  confidence: float,
  seed: int,
) -> Difference:
  """How much the figure of `counts` is above that of `others`.

  Args:
    counts: float64 [N, K], of one model.
    others: float64 [N, K], of another on the same items in the same order.
    figure: of sums, float64 [K].
    resamples: how many draws, above 0.
    confidence: of the interval, between 0 and 1.
    seed: of the draws.
  """
  width = counts.shape[1]

  def apart(sums):
    return figure(sums[:width]) - figure(sums[width:])

  both = np.concatenate([counts, others], 1)
  value = apart(both.sum(0))
  drawn = np.array([apart(sums) for sums in _sums(both, resamples, seed)])
  other_side = np.mean(drawn <= 0 if value > 0 else drawn >= 0)
  return Difference(value, *_bounds(drawn, confidence), min(1.0, 2 * float(other_side)))


def _sums(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
  """float64 [resamples, K]: sums over items that were drawn with replacement."""
  rng, size = np.random.default_rng(seed), len(counts)
  out, left = [], resamples
  while left:
    now = min(left, max(1, _AT_A_TIME // size))
    drawn = rng.integers(size, size=(now, size))
    often = np.stack([np.bincount(row, minlength=size) for row in drawn])
    out.append(often @ counts)
    left -= now
  return np.concatenate(out)


def _bounds(drawn: np.ndarray, confidence: float) -> tuple[float, float]:
  tail = (1 - confidence) / 2
  low, high = np.nanquantile(drawn, [tail, 1 - tail])
  return float(low), float(high)
