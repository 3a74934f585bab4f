"""Ends a process in which nothing moves any more, and leaves word of where it stood."""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading
import time

DIRECTORY = 'hangs'
CODE = 142  # of the process: as if by SIGALRM


class Watchdog:
  """A context in which something must happen every so many seconds.

  If nothing does, be it for a collective that waits for another process, a worker that makes
  no batch, or storage that does not answer, the stacks of all threads are written to stderr
  and into the folder of the run, and the process ends: other processes and who restarts them
  find out by that. Where even the watching thread cannot run, since code that holds Python's
  lock is stuck, a timer of the C library does the same, a little later.
  """

  def __init__(self, seconds: float, workdir: str | pathlib.Path, process: int = 0):
    """Watches nothing yet.

    Args:
      seconds: how long nothing may happen.
      workdir: folder of the run.
      process: number of this one.
    """
    self._seconds = seconds
    self._path = pathlib.Path(workdir, DIRECTORY, f'{os.getpid()}-{process}.txt')
    self._last, self._over = time.monotonic(), threading.Event()
    self._thread = threading.Thread(target=self._watch, name='watchdog', daemon=True)

  def alive(self) -> None:
    """Something has happened."""
    self._last = time.monotonic()

  def __enter__(self) -> 'Watchdog':
    self.alive()
    self._thread.start()
    return self

  def __exit__(self, *error) -> None:
    self._over.set()
    self._thread.join()
    faulthandler.cancel_dump_traceback_later()

  def _watch(self) -> None:
    often = self._seconds / 10
    while True:
      # Begun anew each time: it goes off only if this thread is not heard of for so long.
      faulthandler.dump_traceback_later(self._seconds + 2 * often, exit=True)
      if self._over.wait(often):
        return
      if time.monotonic() - self._last > self._seconds:
        self._bark()

  def _bark(self) -> None:
    said = f'nothing has happened for {self._seconds:g} s (config.guard.hang); all threads:'
    with contextlib.suppress(OSError):  # who reads it may be gone
      print(said, file=sys.stderr, flush=True)
    faulthandler.dump_traceback(sys.__stderr__)
    try:  # stderr comes first: the storage may be what is stuck
      self._path.parent.mkdir(parents=True, exist_ok=True)
      with self._path.open('w', encoding='utf-8') as file:
        print(said, file=file, flush=True)
        faulthandler.dump_traceback(file)
    finally:
      os._exit(CODE)
