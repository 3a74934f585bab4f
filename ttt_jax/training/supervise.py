"""Starts a run again when it ends before its time, and gives up where that does not help."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from absl import logging

from ttt_jax import checkpoint, description, errors
from ttt_jax import config as config_lib
from ttt_jax.training import stopping, watchdog

_MOST = 64  # times the first wait that a wait is at most
_PARTING = 5.0  # seconds in which processes that are left behind may end
_NOT_STARTED = 126  # as a shell has it
_GONE = '{}: there is no run in this folder any more; is its storage mounted?'
_TIDIED = 'resource_tracker'  # of multiprocessing
# Stacks follow; a bar of progress, which ends no line, may go before.
_FATAL = re.compile(r'\b(F\d{4} \d\d:|Fatal Python error).*')
_MEANS = {stopping.CODE: 'it was told to stop', watchdog.CODE: 'nothing moved any more'}


class GivenUp(Exception):
  """A run has failed too often without progress; the message has the last reason."""


def supervise(command: Sequence[str], workdir: str, settings: config_lib.Guard) -> int:
  """Runs `command` until it is done.

  When it fails it is started again, after a wait that doubles each time. Progress is a
  checkpoint with a higher step than all before; after it, counting begins anew. Where there
  was one and the folder holds no run any more, it is not started: it would begin anew, in a
  folder on which storage was mounted. SIGTERM and Ctrl-C are passed on as SIGTERM, and then
  the command is not started again.

  Args:
    command: trains in `workdir`, and ends when its standard input does (see `end_with_input`):
      then the one who supervises it has ended.
    workdir: folder of the run.
    settings: how often, and how long to wait.

  Returns:
    The exit code: 0, or that of the command when it was told to stop, as a shell has it.

  Raises:
    GivenUp: it failed `settings.failures` times in a row without progress; or by an error
      that no other start can mend (`errors.FINAL`), before there was any.
  """
  runner = _Runner(command, settings.grace + _PARTING)
  best, failures, moved = _newest(workdir), 0, False
  with runner.forwarding():
    while True:
      gone = best >= 0 and not _is_there(workdir)
      code, why = (_NOT_STARTED, _GONE.format(workdir)) if gone else runner.run()
      if code == 0 or runner.told.is_set():
        return code if code >= 0 else 128 - code  # by a signal, before it could handle one
      step = _newest(workdir)
      if step > best:
        best, failures, moved = step, 0, True
      failures += 1
      reason = f'{_said(code)}{": " if why else ""}{why}'
      final = code == errors.FINAL and not moved
      if failures >= settings.failures or final:
        raise GivenUp(f'given up after {failures} failures without progress; {reason}')
      wait = settings.backoff * min(2 ** (failures - 1), _MOST)
      logging.error(
        'training has ended (%s). It is started again in %g s, from step %d; failures without '
        'progress: %d of %d',
        *(reason, wait, max(best, 0), failures, settings.failures),
      )
      if runner.told.wait(wait):
        return stopping.CODE


def _newest(workdir: str) -> int:
  """The latest step; -1 if there is none, or storage does not answer."""
  try:
    return max(checkpoint.steps(workdir), default=-1)
  except checkpoint.CheckpointError as error:
    logging.error('%s', error)
    return -1


def _is_there(workdir: str) -> bool:
  """Whether a folder holds what is left of a run; false, too, if storage does not answer."""
  left = (description.FILE, checkpoint.DIRECTORY, checkpoint.DAMAGED)
  return any(os.path.exists(os.path.join(workdir, name)) for name in left)


def end_with_input() -> None:
  """Makes this process get SIGTERM when its standard input ends."""

  def wait() -> None:
    while os.read(0, 2**10):  # not sys.stdin: Python aborts at its end when a thread reads that
      pass
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, name='end with input', daemon=True).start()


class _Runner:
  """Runs a command again and again, shows what it writes, and passes signals on."""

  def __init__(self, command: Sequence[str], grace: float):
    self.told = threading.Event()
    self._command, self._grace, self._process = command, grace, None

  @contextlib.contextmanager
  def forwarding(self):
    """A context in which signals go to the command."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, self._pass_on) for number in numbers]
    try:
      yield
    finally:
      for number, handler in zip(numbers, before):
        signal.signal(number, handler)

  def run(self) -> tuple[int, str]:
    """Runs it once; its exit code, and the line of its stderr that tells why."""
    pipe = subprocess.PIPE
    try:
      self._process = subprocess.Popen(
        self._command, stdin=pipe, stderr=pipe, start_new_session=True
      )
    except OSError as error:  # no memory, too many processes: it may pass
      return _NOT_STARTED, str(error)
    if self.told.is_set():  # while it was started
      self._tell()
    tail = []
    copier = threading.Thread(target=_copy, args=(self._process.stderr, tail), daemon=True)
    copier.start()
    code = self._process.wait()
    _end(self._process.pid)
    copier.join(10)
    return code, _reason(b''.join(tail))

  def _pass_on(self, number, frame) -> None:
    self.told.set()
    if self._process and self._process.poll() is None:
      self._tell()

  def _tell(self) -> None:
    """Tells the command to stop; one that cannot even hear it is killed when its time is up."""
    self._process.terminate()
    last = threading.Timer(self._grace, self._process.kill)
    last.daemon = True
    last.start()


def _end(group: int) -> None:
  """Ends all processes of a group: they would hold memory, and the stderr of the first open.

  Not at once: the one that frees the shared memory that others have left ends behind them.
  """
  end = time.monotonic() + _PARTING
  with contextlib.suppress(ProcessLookupError):  # none is left
    os.killpg(group, signal.SIGTERM)
    os.killpg(group, signal.SIGCONT)  # one that is stopped hears of no other
    while time.monotonic() < end:
      os.killpg(group, 0)
      time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)


def _copy(source: BinaryIO, tail: list[bytes]) -> None:
  """Copies what comes to stderr, as it comes, and keeps the end of it in `tail`."""
  while part := source.read1():
    tail[:] = [b''.join([*tail, part])[-(2**16) :]]
    with contextlib.suppress(OSError):  # a full disk behind the log
      sys.stderr.buffer.write(part)
      sys.stderr.buffer.flush()


def _reason(said: bytes) -> str:
  """The line that tells why: the first that is fatal, or the last.

  It is no bar of progress, and not what was tidied up behind it.
  """
  text = said.decode(errors='replace')
  if fatal := _FATAL.search(text):
    return fatal[0]
  told = (line for line in reversed(text.splitlines()) if line.strip())
  return next((line for line in told if '%|' not in line and _TIDIED not in line), '')


def _said(code: int) -> str:
  """What an exit code means."""
  if code < 0:
    return f'ended by {signal.Signals(-code).name}'
  return f'exit code {code}' + (f', {_MEANS[code]}' if code in _MEANS else '')
