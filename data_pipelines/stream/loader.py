"""Global batches by step: batch = f(config, seed, step), for any number of processes.

A grain MapDataset serves rows by number, so a run resumes from its step alone, and another
number of processes, threads or workers changes nothing in the stream of global batches.
"""

import contextlib
import functools
from collections.abc import Iterator

import grain

from data_pipelines.stream import rows as rows_lib
from data_pipelines.stream import workers as workers_lib
from ttt_jax import batch as batch_lib


class _LocalRows:
  """The rows that one process is to see, in order."""

  def __init__(self, rows, batch_size: int, steps: int, process: int, processes: int):
    self._rows, self._batch_size = rows, batch_size
    self._local, self._process = batch_size // processes, process
    self._steps = steps

  def __len__(self) -> int:
    return self._steps * self._local

  def __getitem__(self, index: int) -> batch_lib.Batch:
    step, within = divmod(int(index), self._local)
    return self._rows[step * self._batch_size + self._process * self._local + within]


def batches(
  rows: rows_lib.Rows,
  batch_size: int,
  steps: int,
  *,
  start: int = 0,
  process: int = 0,
  processes: int = 1,
  threads: int = 1,
  workers: int = 0,
) -> Iterator[batch_lib.Batch]:
  """Yields this process's slice of the global batches `start`, ..., `steps - 1`.

  Args:
    rows: the endless list of rows.
    batch_size: rows of a global batch.
    steps: where the run ends.
    start: the first step.
    process: which part of each batch is wanted.
    processes: how many parts there are; must divide `batch_size`.
    threads: make rows ahead of their use.
    workers: processes that make batches ahead of their use, with so many threads each; 0
      leaves it to threads of this process.

  Raises:
    ValueError: `batch_size` cannot be divided.
    WorkerError: workers die as soon as they are replaced.
  """
  if batch_size % processes:
    raise ValueError(f'data.batch_size={batch_size} is no multiple of {processes} processes')
  make = functools.partial(_made, rows, batch_size, steps, process, processes, threads)
  if workers:
    rows.plan.locate(start * batch_size)  # here, so that not each of them does it
    found = workers_lib.in_turn(make, start, steps, workers)
  else:
    found = make(start, 1)
  with contextlib.closing(found):
    for stacked in found:
      yield batch_lib.Batch(*stacked)


def _made(rows, batch_size, steps, process, processes, threads, first: int, stride: int):
  """The arrays of this process's slice of the batches `first`, `first + stride`, ..."""
  local = batch_size // processes
  source = _LocalRows(rows, batch_size, steps, process, processes)
  dataset = grain.MapDataset.source(source).batch(local, drop_remainder=True)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, 2 * threads))
  return iter(dataset.slice(slice(first, None, stride)).to_iter_dataset(options))
