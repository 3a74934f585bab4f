"""Processes that make batches ahead of their use.

Each sends what it makes through a pipe of its own. A pipe ends with its worker: one that was
killed in the midst of a batch is found out at once, and leaves nothing behind, as it would in
shared memory, which is nobody's then.
"""

import atexit
import contextlib
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from absl import logging

_DEATHS = 3  # without a batch between them, that are borne
_SPAWN = multiprocessing.get_context('spawn')  # threads, such as those of JAX, bear no fork


class WorkerError(RuntimeError):
  """Processes that make batches die again and again, for want of memory most likely."""


def in_turn(
  make: Callable[[int, int], Iterable], start: int, stop: int, workers: int
) -> Iterator[Any]:
  """Yields the batches `start`, ..., `stop - 1`; workers that die are replaced.

  Args:
    make: picklable; gives every so many-th batch before `stop`, as the second argument says,
      from the first argument on.
    start: number of the first batch.
    stop: number behind the last.
    workers: how many processes share the work.

  Raises:
    WorkerError: they die again and again, and no batch comes.
    Exception: what `make` raises in a worker.
  """
  team = [_Worker(make, start + place, workers) for place in range(min(workers, stop - start))]
  try:
    for number in range(start, stop):
      place, deaths = (number - start) % workers, 0
      while (batch := team[place].take()) is None:
        deaths += 1
        died = 'processes that make batches (data.workers)'
        reason = f'exit code {team[place].close()}'
        if deaths > _DEATHS:
          raise WorkerError(
            f'{died} have died {deaths} times before step {number + 1}: {reason}'
          )
        logging.error('one of %d %s has died, and is replaced: %s', workers, died, reason)
        team[place] = _Worker(make, number, workers)
      yield batch
  finally:
    for worker in team:
      worker.close()


class _Worker:
  """A process that makes every so many-th batch, from one on."""

  def __init__(self, make: Callable, first: int, stride: int):
    self._pipe, theirs = _SPAWN.Pipe(duplex=False)
    arguments = theirs, make, first, stride
    self._process = _SPAWN.Process(target=_work, args=arguments, daemon=True)
    self._process.start()
    theirs.close()  # else the pipe would not end with the worker
    # Python ends by SIGTERM, which they ignore, and waiting for those that are left.
    atexit.register(self.close)

  def take(self) -> Any:
    """The next batch; None if the worker has died.

    Raises:
      Exception: what the worker raised.
    """
    try:
      batch, error = self._pipe.recv()
    except (EOFError, OSError):  # between batches, and in the midst of one
      return None
    if error is not None:
      raise error
    return batch

  def close(self) -> int:
    """Ends it, if it has not ended; its exit code."""
    atexit.unregister(self.close)
    self._pipe.close()
    self._process.join(0.1)  # one that has died tells how
    self._process.kill()
    self._process.join()
    return self._process.exitcode


def _work(pipe: connection.Connection, make: Callable, first: int, stride: int) -> None:
  """Sends batches until there are none, or nobody takes them any more."""
  for number in (signal.SIGINT, signal.SIGTERM):  # they are for the one who takes them
    signal.signal(number, signal.SIG_IGN)
  with contextlib.suppress(BrokenPipeError):
    for made in _made(make, first, stride):
      pipe.send(made)


def _made(make: Callable, first: int, stride: int) -> Iterator[tuple[Any, Exception | None]]:
  """Batches, and the error that ends them."""
  try:
    for batch in make(first, stride):
      yield batch, None
  except Exception as error:
    yield None, _portable(error)


def _portable(error: Exception) -> Exception:
  """The same with what led to it; or, where it cannot be sent, another one that tells of it."""
  told = ''.join(traceback.format_exception(error))
  error.add_note(f'In a process that makes batches:\n{told}')
  try:
    pickle.loads(pickle.dumps(error))
  except Exception:
    return RuntimeError(told)
  return error
