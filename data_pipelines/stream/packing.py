"""Planned packing: which documents share a row, computed from their lengths alone."""

from typing import NamedTuple

import numpy as np

# Of the algorithm: plans on disk are of no use to another one, and no run may go on with it.
VERSION = 2


class Packed(NamedTuple):
  """Rows of items.

  Attributes:
    items: int32 [items], indices of the items in the order of the rows.
    offsets: int32 [rows + 1], row i holds `items[offsets[i] : offsets[i + 1]]`.
  """

  items: np.ndarray
  offsets: np.ndarray

  def __len__(self) -> int:
    return len(self.offsets) - 1


def pack(lengths: np.ndarray, capacity: int, rng: np.random.Generator) -> Packed:
  """Packs items into rows, in a random order of rows.

  Args:
    lengths: int [items], each in [1, capacity].
    capacity: positions of a row.
    rng: decides which of equally long items goes where, and the order of the rows.

  Raises:
    ValueError: an item has no length, or fits into no row.
  """
  if len(lengths) and not 0 < lengths.min() <= lengths.max() <= capacity:
    raise ValueError(f'lengths of {lengths.min()} to {lengths.max()} in rows of {capacity}')
  sizes, ends = fill_bins(np.bincount(lengths, minlength=capacity + 1).tolist(), capacity)
  # The bins are filled with lengths; the n-th place of a length takes the n-th item of it.
  order = rng.permutation(len(lengths)).astype(np.int32)
  order = order[np.argsort(lengths[order], kind='stable')]
  items = np.empty_like(order)
  items[np.argsort(np.array(sizes, np.int32), kind='stable')] = order
  bins = np.split(items, ends[:-1]) if ends else []
  shuffled = [bins[index] for index in rng.permutation(len(bins))]
  offsets = np.cumsum([0, *map(len, shuffled)], dtype=np.int32)
  return Packed(np.concatenate([items[:0], *shuffled]), offsets)


def fill_bins(counts: list[int], capacity: int) -> tuple[list[int], list[int]]:
  """Packs items into bins: longest first, then whatever fills the bin best.

  As best-fit decreasing, but the last two items of a bin are chosen together: where items
  are not small beside the bin, that is what fills it. The lengths at hand are the bits of a
  number, so that the best length, or pair of lengths, is found by a few operations on it.

  Args:
    counts: [capacity + 1], how many items there are of each length; is used up.
    capacity: of a bin.

  Returns:
    Lengths of all items, bin after bin; and where each bin ends in them.
  """
  bits = sum(1 << size for size, count in enumerate(counts) if count)
  mirror = sum(1 << capacity - size for size, count in enumerate(counts) if count)
  chosen, ends = [], []
  while bits:
    room = capacity
    while taken := _next(bits, mirror, counts, capacity, room):
      for size in taken:
        room -= size
        chosen.append(size)
        counts[size] -= 1
        if not counts[size]:
          bits ^= 1 << size
          mirror ^= 1 << capacity - size
    ends.append(len(chosen))
  return chosen, ends


def _next(bits: int, mirror: int, counts: list[int], capacity: int, room: int) -> tuple:
  """The lengths to put next where `room` is free; () if none fits.

  Args:
    bits: bit s is set where there is an item of length s.
    mirror: bit `capacity - s` is set then.
    counts: items of each length.
    capacity: of a bin.
    room: of it that is free; the first item of a bin is the longest, whatever follows.
  """
  single = (bits & (2 << room) - 1).bit_length() - 1
  if single <= 0:
    return ()
  smallest = (bits & -bits).bit_length() - 1
  if room == capacity or single == room or room >= 3 * smallest:
    return (single,)
  for total in range(room, single, -1):  # at most two more fit: the best pair, if it is better
    large = bits & mirror >> capacity - total  # bit s: there are items of s and of total - s
    while large:
      size = large.bit_length() - 1
      if 2 * size != total or counts[size] > 1:
        return (size, total - size)
      large ^= 1 << size
  return (single,)
