"""One pass over the records of a split."""

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tqdm

from data_pipelines import records
from ttt_jax.inspection import statistics

_BATCH = 4096  # records whose figures are taken together
_TOKENS = 4_000_000  # or so many tokens, if these are fewer records


class Scanned(NamedTuple):
  """What a pass found.

  Attributes:
    statistics: of all records that were read.
    chosen: the records that were asked for, by their number in the split.
  """

  statistics: statistics.Statistics
  chosen: dict[int, records.Record]


def scan(
  source: records.Source,
  numbers: Collection[int],
  chosen: Collection[int],
  keys: Collection[str] = (),
) -> Scanned:
  """Reads records in order, with a progress bar.

  Args:
    source: the split.
    numbers: which records to take figures of, ascending.
    chosen: numbers of records to keep, among them.
    keys: of records to keep; looked for beyond `numbers` too.

  Raises:
    DataError: a record cannot be read, or there is no record of a key.
  """
  wanted, missing, kept = set(chosen), set(keys), {}
  total = statistics.of([], source.assets)
  bar = tqdm.tqdm(total=len(numbers), unit=' records', desc='reading', mininterval=0.5)
  with bar:
    for batch in _batches(source, numbers):
      for number, record in batch:
        if number in wanted or record.key in missing:
          missing.discard(record.key)
          kept[number] = record
      total += statistics.of(batch, source.assets)
      bar.update(len(batch))
  if missing and len(numbers) < len(source):
    kept |= _find(source, np.setdiff1d(np.arange(len(source)), numbers).tolist(), missing)
  if missing:
    raise records.DataError(
      f'{source.directory}: split {source.split!r} has no record of the key '
      f'{", ".join(map(repr, sorted(missing)))}'
    )
  return Scanned(total, kept)


def _batches(
  source: records.Source, numbers: Iterable[int]
) -> Iterator[list[tuple[int, records.Record]]]:
  batch, tokens = [], 0
  for number in numbers:
    batch.append((number, source[number]))
    tokens += len(batch[-1][1].document.tokens)
    if len(batch) == _BATCH or tokens > _TOKENS:
      yield batch
      batch, tokens = [], 0
  if batch:
    yield batch


def _find(
  source: records.Source, numbers: list[int], missing: set[str]
) -> dict[int, records.Record]:
  """Looks for keys among more records, until all are found; takes them out of `missing`."""
  found = {}
  for number in tqdm.tqdm(numbers, unit=' records', desc='looking for keys', mininterval=0.5):
    record = source[number]
    if record.key in missing:
      missing.discard(record.key)
      found[number] = record
    if not missing:
      break
  return found
