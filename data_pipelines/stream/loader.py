"""Global batches by step: batch = f(config, seed, step), for any number of processes.

A grain MapDataset serves rows by number, so a run resumes from its step alone, and another
number of processes, threads or workers changes nothing in the stream of global batches.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator

import grain
from absl import logging

from data_pipelines.stream import rows as rows_lib
from ttt_jax import batch as batch_lib

_DEATHS = 3  # of workers, without a batch between them, that are borne


class WorkerError(RuntimeError):
  """Processes that make batches die again and again, for want of memory most likely."""


class _LocalRows:
  """The rows that one process is to see, in order."""

  def __init__(self, rows, batch_size: int, steps: int, process: int, processes: int):
    self._rows, self._batch_size = rows, batch_size
    self._local, self._process = batch_size // processes, process
    self._steps = steps

  def __setstate__(self, state: dict) -> None:
    self.__dict__.update(state)
    if parent := multiprocessing.parent_process():  # it came to a worker
      threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

  def __len__(self) -> int:
    return self._steps * self._local

  def __getitem__(self, index: int) -> batch_lib.Batch:
    step, within = divmod(int(index), self._local)
    return self._rows[step * self._batch_size + self._process * self._local + within]


def _end_with(parent) -> None:
  """Ends a worker whose process was killed: nobody will take its batches any more."""
  parent.join()
  os._exit(1)


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
      leaves it to threads of this process. They need absl's flags to be parsed.

  Raises:
    ValueError: `batch_size` cannot be divided.
    WorkerError: workers die as soon as they are replaced.
  """
  if batch_size % processes:
    raise ValueError(f'data.batch_size={batch_size} is no multiple of {processes} processes')
  local = batch_size // processes
  source = _LocalRows(rows, batch_size, steps, process, processes)
  ahead = max(4, 2 * threads)  # batches
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)

  def made(first: int) -> grain.DatasetIterator:
    dataset = grain.MapDataset.source(source).slice(slice(first * local, None))
    batched = dataset.batch(local, drop_remainder=True).to_iter_dataset(options)
    if workers:
      rows.plan.locate(first * batch_size)  # here, so that not each of them does it
      how = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
      batched = batched.mp_prefetch(how)
    return iter(batched)

  if workers:
    yield from _with_workers(made, start, workers)
  else:
    yield from (batch_lib.Batch(*stacked) for stacked in made(start))


def _with_workers(
  made: Callable[[int], grain.DatasetIterator], start: int, workers: int
) -> Iterator[batch_lib.Batch]:
  """The batches from `start` on; workers that die are replaced, as batches follow from steps.

  Args:
    made: iterators of the batches from a step on.
    start: the first step.
    workers: how many there are.

  Raises:
    WorkerError: they die again and again, and no batch comes.
  """
  deaths, step, iterator = 0, start, made(start)
  try:
    while True:
      try:
        stacked = next(iterator)
      except StopIteration:
        return
      except RuntimeError as error:
        if 'terminated unexpectedly' not in str(error):
          raise
        deaths += 1
        if deaths > _DEATHS:
          raise WorkerError(
            f'processes that make batches (data.workers) have died {deaths} times before step '
            f'{step + 1}: {error}'
          ) from error
        logging.error(
          'one of %d processes that make batches (data.workers) has died, and is replaced: %s',
          *(workers, error),
        )
        iterator.close()
        iterator = made(step)
        continue
      yield batch_lib.Batch(*stacked)
      deaths, step = 0, step + 1
  finally:
    iterator.close()
