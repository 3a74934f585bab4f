"""Global batches by step: batch = f(config, seed, step), for any number of processes.

A grain MapDataset serves rows by number, so a run resumes from its step alone, and another
number of processes, threads or workers changes nothing in the stream of global batches.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import grain

from data_pipelines.stream import rows as rows_lib
from data_pipelines.stream import workers as workers_lib
from ttt_jax import batch as batch_lib


class _LocalRows:
  """The rows that one process is to see, in order; `size` of a batch."""

  def __init__(self, rows, batch_size: int, steps: int, own: Sequence[int]):
    self.size = len(own)
    self._rows, self._batch_size, self._steps, self._own = rows, batch_size, steps, own

  def __len__(self) -> int:
    return self._steps * self.size

  def __getitem__(self, index: int) -> batch_lib.Batch:
    step, within = divmod(int(index), self.size)
    return self._rows[step * self._batch_size + int(self._own[within])]


def batches(
  rows: rows_lib.Rows,
  batch_size: int,
  steps: int,
  *,
  start: int = 0,
  own: Sequence[int] | None = None,
  threads: int = 1,
  workers: int = 0,
) -> Iterator[batch_lib.Batch]:
  """Yields this process's rows of the global batches `start`, ..., `steps - 1`.

  Args:
    rows: the endless list of rows.
    batch_size: rows of a global batch.
    steps: where the run ends.
    start: the first step.
    own: numbers of these rows within a batch; by default all.
    threads: make rows ahead of their use.
    workers: processes that make batches ahead of their use, with so many threads each; 0
      leaves it to threads of this process.

  Raises:
    WorkerError: workers die as soon as they are replaced.
  """
  local = _LocalRows(rows, batch_size, steps, range(batch_size) if own is None else own)
  make = functools.partial(_made, local, threads)
  if workers:
    rows.plan.locate(start * batch_size)  # here, so that not each of them does it
    found = workers_lib.in_turn(make, start, steps, workers)
  else:
    found = make(start, 1)
  with contextlib.closing(found):
    for stacked in found:
      yield batch_lib.Batch(*stacked)


def _made(local: _LocalRows, threads: int, first: int, stride: int) -> Iterator[tuple]:
  """The arrays of the batches `first`, `first + stride`, ..."""
  dataset = grain.MapDataset.source(local).batch(local.size, drop_remainder=True)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, 2 * threads))
  return iter(dataset.slice(slice(first, None, stride)).to_iter_dataset(options))
