"""Planned packing: which records share a row, computed from their lengths alone."""

import bisect
from typing import NamedTuple

import numpy as np

VERSION = 1  # of the algorithm: plans are kept on disk, and another one makes other rows


class Rows(NamedTuple):
  """The rows of an epoch.

  Attributes:
    records: int64 [R], record numbers in the order of the rows.
    offsets: int64 [rows + 1], row i holds `records[offsets[i] : offsets[i + 1]]`.
  """

  records: np.ndarray
  offsets: np.ndarray

  def __len__(self) -> int:
    return len(self.offsets) - 1


def fill_bins(lengths: list[int], capacity: int) -> list[list[int]]:
  """Packs items into bins: longest first, then whatever fills the bin best.

  As best-fit decreasing, but the last two items of a bin are chosen together: where items
  are not small beside the bin, that is what fills it.

  Args:
    lengths: of the items, each in [1, capacity].
    capacity: of a bin.

  Returns:
    For each bin, the indices of its items.
  """
  waiting: dict[int, list[int]] = {}
  for index in reversed(range(len(lengths))):
    waiting.setdefault(lengths[index], []).append(index)
  sizes = sorted(waiting)
  bins = []

  def take(size: int) -> int:
    index = waiting[size].pop()
    if not waiting[size]:
      sizes.remove(size)
    return index

  while sizes:
    room = capacity - sizes[-1]
    chosen = [take(sizes[-1])]
    while sizes and sizes[0] <= room:
      size = sizes[bisect.bisect_right(sizes, room) - 1]
      if room < 3 * sizes[0] and size < room:
        pair = _best_pair(sizes, waiting, room)
        if sum(pair) > size:
          chosen += [take(part) for part in pair]
          break
      chosen.append(take(size))
      room -= size
    bins.append(chosen)
  return bins


def _best_pair(sizes: list[int], waiting: dict[int, list[int]], room: int) -> tuple:
  """The two sizes that together fill `room` best, without going beyond it; or ()."""
  best, low, high = (), 0, bisect.bisect_right(sizes, room) - 1
  while low <= high:
    small, large = sizes[low], sizes[high]
    if small + large > room:
      high -= 1
      continue
    if small + large > sum(best) and (low < high or len(waiting[small]) > 1):
      best = (small, large)
    if small + large == room and best:
      break
    low += 1
  return best


def plan(lengths: np.ndarray, capacity: int, window: int, rng: np.random.Generator) -> Rows:
  """Shuffles records, packs each window of them, and shuffles the window's rows.

  Args:
    lengths: int [R]; records longer than `capacity` (and those of length 0) are left out:
      counting and reporting them is the caller's part.
    capacity: positions of a row.
    window: records that are packed together.
    rng: decides the order.
  """
  order = rng.permutation(len(lengths))
  order = order[(lengths[order] > 0) & (lengths[order] <= capacity)]
  records, sizes = [], [0]
  for start in range(0, len(order), window):
    chosen = order[start : start + window]
    bins = fill_bins(lengths[chosen].tolist(), capacity)
    for index in rng.permutation(len(bins)):
      records.extend(chosen[bins[index]])
      sizes.append(len(bins[index]))
  return Rows(np.array(records, np.int64), np.cumsum(sizes))
