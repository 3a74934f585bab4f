"""The plan of the stream: row i holds which records of which data sets.

A data set is an endless sequence (`Deck`). The stream takes records from these sequences as
the mixture says, a window of them at a time, and packs the records of a window into rows,
whatever set they come from. A window is a function of the settings and of what each set gave
before it, so that only the number of rows of each window is kept on disk: that is what it
takes to find a row far away.
"""

import bisect
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from absl import logging

from data_pipelines import cache, records
from data_pipelines.stream import mixture, packing
from ttt_jax import config as config_lib
from ttt_jax.diffusion import corruption

# Purposes of random numbers: part of the seed, so that none repeats another's draws.
ORDER, TRUNCATION, WINDOW, TIME, DOCUMENT = range(5)

_CHUNK = 64  # windows whose numbers of rows lie in one file


class Dealt(NamedTuple):
  """Records of a data set, in the order of its sequence.

  Attributes:
    records: int32 [n], their numbers.
    cuts: int32 [n], the length to which each is cut; 0: it stays whole.
    lengths: int32 [n], positions that each takes in a row.
  """

  records: np.ndarray
  cuts: np.ndarray
  lengths: np.ndarray


class Deck:
  """A data set as an endless sequence: epoch after epoch, each in an order of its own.

  Attributes:
    too_long: number of records that fit into no row, and are left out.
  """

  def __init__(
    self,
    source: records.Source,
    data: config_lib.Data,
    mask: config_lib.Mask,
    objective: config_lib.Objective,
    seed,
  ):
    """Looks at the records' shapes.

    Args:
      source: the data set.
      data: the length of rows.
      mask: what a noisy group is.
      objective: how records are cut, and copied.
      seed: of the run, and the number of the data set: two ints.

    Raises:
      DataError: no record fits into a row.
    """
    lengths, copied = source.shapes.lengths, np.zeros((len(source.shapes.lengths), 2), np.int64)
    if objective.streams == 2:
      copied = source.copied(mask.group_size) * objective.copies
    lengths = lengths + copied[:, 0]
    # A record that is too long is left out even in the epochs in which it would be cut.
    self._fitting = np.flatnonzero(lengths <= data.row_length).astype(np.int32)
    shapes = lengths, source.shapes.last_start, source.shapes.last_codes, *copied.T
    self._shapes = [part[self._fitting].astype(np.int32) for part in shapes]
    self._objective, self._seed = objective, seed
    self._orders: dict[int, np.ndarray] = {}  # of the latest epochs
    self.too_long = len(lengths) - len(self._fitting)
    if not len(self):
      raise records.DataError(
        f'{source.directory}: none of the {len(lengths)} records of {source.split!r} fits '
        f'into data.row_length={data.row_length} tokens'
      )
    if self.too_long:
      logging.warning(
        '%s: %d of %d records are longer than data.row_length=%d and are left out (longest %d)',
        source.directory,
        self.too_long,
        len(lengths),
        data.row_length,
        lengths.max(),
      )

  def __len__(self) -> int:
    """Records of an epoch."""
    return len(self._fitting)

  @property
  def mean(self) -> float:
    """Positions of a record, if none is cut."""
    return float(self._shapes[0].mean())

  def deal(self, first: int, behind: int) -> Dealt:
    """The records at the places `first`, ..., `behind - 1` of the sequence."""
    chosen = [np.zeros(0, np.int32)]
    for epoch in range(first // len(self), -(-behind // len(self))):
      start = epoch * len(self)
      chosen.append(self._order(epoch)[max(0, first - start) : behind - start])
    chosen = np.concatenate(chosen)
    lengths, last_start, last_codes, copied, last = (part[chosen] for part in self._shapes)
    draws = self._draws(first, behind)
    cuts = corruption.truncated_length(last_start, last_codes, draws, self._objective)
    cuts = cuts.astype(np.int32)
    if self._objective.streams == 2:  # a span that is cut is copied as far as it goes
      copied = copied - last + (cuts - last_start) * self._objective.copies
    return Dealt(self._fitting[chosen], cuts, np.where(cuts > 0, cuts + copied, lengths))

  def _order(self, epoch: int) -> np.ndarray:
    if epoch not in self._orders:
      if len(self._orders) > 1:
        self._orders.pop(next(iter(self._orders)))
      order = np.arange(len(self), dtype=np.int32)
      seed, number = self._seed
      np.random.default_rng([seed, ORDER, number, epoch]).shuffle(order)
      self._orders[epoch] = order
    return self._orders[epoch]

  def _draws(self, first: int, last: int) -> np.ndarray:
    """Two numbers in [0, 1) for each place, whichever stretch is asked for."""
    # Philox makes its four numbers from a counter: of places 2 i and 2 i + 1 here.
    philox = np.random.Philox(key=key(TRUNCATION, *self._seed), counter=first // 2)
    draws = np.random.Generator(philox).random((last - first + first % 2, 2))
    return draws[first % 2 :]


def key(purpose: int, seed: int, number: int) -> np.ndarray:
  """A key of the generator Philox, for data set `number`."""
  return np.random.SeedSequence([seed, purpose, number, 0]).generate_state(2, np.uint64)


class Window(NamedTuple):
  """Records that are packed together, in the order of their rows; arrays are [n].

  Attributes:
    first: records of the stream before this window.
    sets: int32, the data set of each.
    places: int64, its place in the sequence of the data set.
    records: int32, its number in the data set.
    cuts: int32, the length to which it is cut; 0: it stays whole.
    offsets: int32 [rows + 1], row i holds the records `offsets[i]`, ..., `offsets[i + 1] - 1`.
  """

  first: int
  sets: np.ndarray
  places: np.ndarray
  records: np.ndarray
  cuts: np.ndarray
  offsets: np.ndarray

  def __len__(self) -> int:
    """Rows."""
    return len(self.offsets) - 1


class Plan:
  """The rows of the endless stream.

  Attributes:
    decks: the data sets.
    window_size: records of a window.
  """

  def __init__(
    self,
    sources: Sequence[records.Source],
    data: config_lib.Data,
    mask: config_lib.Mask,
    objective: config_lib.Objective,
    seed: int,
  ):
    """Opens the stream; plans nothing yet.

    Raises:
      DataError: none of the records of a data set fits into a row.
    """
    numbered = enumerate(sources)
    self.decks = [
      Deck(source, data, mask, objective, (seed, number)) for number, source in numbered
    ]
    sizes = [len(deck) for deck in self.decks]
    # A window that holds more than there is would mix the epochs of it.
    self.window_size = min(data.window, sum(sizes))
    changes = [
      mixture.Change(step * data.batch_size, tuple(map(Fraction, weights)))
      for step, weights in data.changes
    ]
    self._shares = mixture.shares(data, sizes)
    self._course = mixture.Course(self.window_size, self._shares, changes)
    self._capacity, self._seed = data.row_length, seed
    self._cache = sources[0].cache
    self._depends = [packing.VERSION, [source.fingerprint for source in sources], seed]
    self._depends += [data.row_length, self.window_size]
    self._depends += [objective.sst, objective.sst_range, objective.sst_above]
    if objective.streams == 2:
      self._depends += [mask.group_size, objective.copies]
    self._windows: dict[int, Window] = {}  # the latest few
    self._lock = threading.RLock()  # rows are made by several threads

  def __getstate__(self) -> dict:
    return self.__dict__ | {'_lock': None}

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state, _lock=threading.RLock())

  def locate(self, row: int) -> tuple[int, int]:
    """Window, and row within it, of row `row` of the stream."""
    with self._lock:
      starts = self._course.starts
      while starts[-1] <= row:
        for rows in self._chunk():
          self._course.append(int(rows))
      window = bisect.bisect_right(starts, row) - 1
      return window, row - starts[window]

  def window(self, number: int) -> Window:
    """The rows of a window.

    Raises:
      DataError: they are not as many as were counted.
    """
    with self._lock:
      starts = self._course.starts
      while len(starts) <= number + 1:
        self.locate(starts[-1])
      if number not in self._windows:
        if len(self._windows) > 3:
          self._windows.pop(next(iter(self._windows)))
        made, counted = self._make(number, self._course), starts[number + 1] - starts[number]
        if len(made) != counted:  # rows of other windows would be left out, or come again
          raise records.DataError(
            f'{self._cache}: window {number} of the stream was counted to have '
            f'{counted} rows, but has {len(made)}. Was it counted with another version of '
            "numpy? Go on with the version that the run's config.json names; for a new run, "
            'delete the folder'
          )
        self._windows[number] = made
      return self._windows[number]

  def records(self, row: int) -> list[tuple[int, int]]:
    """Which records row `row` of the stream holds: the number of the data set, and its own."""
    number, within = self.locate(row)
    window = self.window(number)
    here = slice(*window.offsets[within : within + 2])
    return list(zip(window.sets[here].tolist(), window.records[here].tolist()))

  def epochs(self) -> list[tuple[float, float]]:
    """For each data set its share of the records, and about how many rows an epoch of it takes.

    By the weights at first, and as if no record were cut; without end for a set at rest.
    """
    shares = [float(share / sum(self._shares)) for share in self._shares]
    tokens = sum(share * deck.mean for share, deck in zip(shares, self.decks))  # of a record
    return [
      (share, len(deck) / share * tokens / self._capacity if share else float('inf'))
      for share, deck in zip(shares, self.decks)
    ]

  def counts(self, window: int) -> tuple[int, ...]:
    """Records that each data set has given before `window`."""
    with self._lock:
      while len(self._course.starts) <= window:
        self.locate(self._course.starts[-1])
      return self._course.counts(window)

  def _chunk(self) -> np.ndarray:
    """Numbers of rows of the next windows, from disk if they were counted before."""

    def count():
      course = self._course.copy()
      first = len(course.starts) - 1
      for number in range(first, first + _CHUNK):
        course.append(len(self._make(number, course)))
      return {'rows': np.diff(course.starts[first:]).astype(np.int32)}

    def fits(arrays: cache.Arrays) -> bool:
      rows = arrays.get('rows', np.empty(0))
      return rows.shape == (_CHUNK,) and rows.dtype == np.int32 and bool((rows > 0).all())

    depends = [*self._depends, *self._course.depends(_CHUNK)]
    return cache.cached(self._cache, 'plan', depends, count, fits)['rows']

  def _make(self, number: int, course: mixture.Course) -> Window:
    begin, end = course.counts(number), course.counts(number + 1)
    dealt = [deck.deal(*part) for deck, *part in zip(self.decks, begin, end)]
    whole = Dealt(*map(np.concatenate, zip(*dealt)))
    sets = np.repeat(np.arange(len(dealt), dtype=np.int32), np.subtract(end, begin))
    places = np.concatenate([np.arange(*part) for part in zip(begin, end)])
    rng = np.random.default_rng([self._seed, WINDOW, number, 0])
    items, offsets = packing.pack(whole.lengths, self._capacity, rng)
    parts = (part[items] for part in (sets, places, whole.records, whole.cuts))
    return Window(number * self.window_size, *parts, offsets)
