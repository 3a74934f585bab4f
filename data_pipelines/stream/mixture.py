"""How many records each data set gives to any stretch of the stream that they make together.

The stream is cut into windows of equally many records. The weights of the data sets are
constant over pieces of it that begin with a window, so that the records which each set has
given before a window are a function of the settings and of where the pieces begin.
"""

import bisect
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import checks
from ttt_jax import config as config_lib


def open_all(data: config_lib.Data) -> list[records.Source]:
  """Opens the data sets that `data.directory` names.

  Raises:
    ConfigError: it names none.
    DataError: there is no such data set or split.
    AssetError: their ids do not mean the same.
  """
  what = 'the folder of a data set, or several with commas between'
  checks.require(bool(data.directories), 'data.directory', data.directory, what)
  sources = [
    records.Source(directory, data.split, data.cache) for directory in data.directories
  ]
  first = sources[0]
  for other in sources[1:]:
    for part, wanted in first.fingerprints.items():
      if other.fingerprints.get(part) != wanted:
        raise assets_lib.AssetError(
          f'{first.directory} and {other.directory} cannot be mixed: the {part} of the first '
          f'is {wanted}, of the second {other.fingerprints.get(part)}; make one of them again '
          f'with the assets of the other'
        )
  return sources


def shares(data: config_lib.Data, sizes: Sequence[int]) -> tuple[Fraction, ...]:
  """What each data set has a share of at first; shares need not sum to one.

  Args:
    data: its weights, or else its temperature T: size^(1 / T).
    sizes: records of each set.

  Raises:
    ConfigError: the temperature is so low that no number is as large as a share.
  """
  if data.weights:
    return tuple(map(Fraction, data.weights))
  if data.temperature == 1:  # exactly: then each record comes once an epoch of them all
    return tuple(map(Fraction, sizes))
  try:
    return tuple(Fraction(size ** (1 / data.temperature)) for size in sizes)
  except OverflowError as error:
    raise checks.ConfigError(
      f'config.data.temperature is {data.temperature}, which is too low for sets of up to '
      f'{max(sizes)} records: the largest would be all; name it alone'
    ) from error


def apportion(number: int, parts: Sequence[Fraction]) -> list[int]:
  """Divides the first `number` records of a stream among data sets, by their shares.

  Each set's count grows with `number`, and misses its share by less than
  1/2 + (1 + 1/2 + ... + 1/(sets - 1)) / 2 records: the largest set takes its part, rounded,
  of all, the next one its part of what is left, and so on.

  Args:
    number: of records.
    parts: the shares; at least one is above 0.

  Returns:
    Counts that sum to `number`.
  """
  counts, left, of = [0] * len(parts), number, sum(parts)
  for index in sorted(range(len(parts)), key=lambda index: -parts[index]):
    if parts[index]:
      counts[index] = int(left * parts[index] / of + Fraction(1, 2))
      left -= counts[index]
      of -= parts[index]
  return counts


class Piece(NamedTuple):
  """A part of the stream with constant shares.

  Attributes:
    window: with which it begins.
    counts: records of each data set before it.
    shares: of each data set in it.
  """

  window: int
  counts: tuple[int, ...]
  shares: tuple[Fraction, ...]


class Change(NamedTuple):
  """New shares, from the first window on that begins at row `row` or behind it."""

  row: int
  shares: tuple[Fraction, ...]


class Course:
  """How far windows and pieces are known: rows of windows come in, counts go out."""

  def __init__(self, window: int, first: Sequence[Fraction], changes: Sequence[Change]):
    """Begins the stream.

    Args:
      window: records of a window.
      first: shares at the beginning.
      changes: of the shares, in their order; at rows above 0.
    """
    self.starts = [0]  # the first row of each known window, and where the next will begin
    self._size = window
    self._pieces = [Piece(0, (0,) * len(first), tuple(first))]
    self._changes = list(changes)

  def copy(self) -> 'Course':
    """A course that goes on by itself."""
    made = Course(self._size, self._pieces[0].shares, self._changes)
    made.starts, made._pieces = self.starts[:], self._pieces[:]
    return made

  def append(self, rows: int) -> None:
    """The next window takes so many rows."""
    self.starts.append(self.starts[-1] + rows)
    window = len(self.starts) - 1
    while self._changes and self._changes[0].row <= self.starts[-1]:
      changed = self._changes.pop(0).shares
      self._pieces.append(Piece(window, self.counts(window), changed))

  def counts(self, window: int) -> tuple[int, ...]:
    """Records of each data set before `window`, up to the one that comes next."""
    index = bisect.bisect_right(self._pieces, window, key=lambda piece: piece.window) - 1
    piece = self._pieces[index]
    since = apportion((window - piece.window) * self._size, piece.shares)
    return tuple(before + more for before, more in zip(piece.counts, since))

  def depends(self, windows: int) -> list:
    """All that the next `windows` windows take from here, as JSON values."""
    reach = self.starts[-1] + windows * self._size  # rows that they can have
    piece = self._pieces[-1]
    said = [len(self.starts), self.starts[-1], piece.window, piece.counts]
    said.append(list(map(str, piece.shares)))
    near = [change for change in self._changes if change.row < reach]
    return [*said, [[change.row, *map(str, change.shares)] for change in near]]
