"""Ends a run that was told to, with a checkpoint, and within a stated time."""

import os
import signal
import sys
import threading
import time

from ttt_jax import errors

CODE = 128 + signal.SIGTERM  # of the process, as a shell has it


class Stopped(Exception):
  """A run has ended before its last step because it was told to; all that it did is saved.

  Attributes:
    left: seconds that it has for its end.
  """

  exit_code = CODE

  def __init__(self, message: str, left: float):
    super().__init__(message)
    self.left = left


class Notice:
  """A context in which SIGTERM is a wish, for the loop to grant, and not the end.

  If the context is not left `grace` seconds after it, whatever holds it up, the process ends
  then; a checkpoint that is not whole by that time is lost. Outside the main thread, where
  signals cannot be handled, it does nothing.

  Attributes:
    given: whether SIGTERM came.
  """

  def __init__(self, grace: float):
    """Changes nothing yet."""
    said = f'no end {grace:g} s after SIGTERM (config.guard.grace): gone without saving'
    self.given, self._before, self._timer = False, None, _timer(grace, said, CODE)
    self._grace, self._since = grace, None

  @property
  def left(self) -> float:
    """Seconds that the process has for its end."""
    gone = 0.0 if self._since is None else time.monotonic() - self._since
    return max(0.0, self._grace - gone)

  def __enter__(self) -> 'Notice':
    if threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._take)
    return self

  def __exit__(self, *error) -> None:
    self._timer.cancel()
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _take(self, number, frame) -> None:
    if not self.given:
      self.given, self._since = True, time.monotonic()
      self._timer.start()


def end_within(seconds: float, error: BaseException | None = None) -> None:
  """Gives this process, which has nothing more to do, so many seconds for its end.

  It might have none: threads of orbax wait ten minutes for each other when one has failed.

  Args:
    seconds: how many.
    error: by which it ends, if by one.
  """
  code = int(error is not None)
  if isinstance(error, Stopped | errors.UserError):
    code = error.exit_code
  why = repr(error) if error else 'the last step'
  said = f'no end {round(seconds, 1):g} s after {why} (config.guard.grace)'
  _timer(seconds, said, code).start()


def _timer(seconds: float, said: str, code: int) -> threading.Timer:
  """Will end the process, if it is started and not cancelled."""

  def end() -> None:
    try:  # who reads stderr may be gone
      print(said, file=sys.stderr, flush=True)
    finally:
      os._exit(code)

  made = threading.Timer(seconds, end)
  made.daemon = True
  return made
