"""Runs under `ttt-train --supervise`, to which something is done."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import Any

PATIENCE = 600  # seconds that a run may take


class Lost(Exception):
  """A run that did not come through; why."""


class Missed(Exception):
  """A fault that did not meet its run."""


class Run:
  """A run under supervision, in one process or several.

  Attributes:
    folder: its workdir.
    processes: how many.
    struck: how often something was done to it.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    config: str,
    settings: dict[str, Any],
    cache: pathlib.Path,
    processes: int = 1,
    program: str = '',
    compiler: str = '',
  ):
    """Starts nothing yet.

    Args:
      folder: its workdir; logs, and what else it needs, lie beside it.
      config: file of settings.
      settings: that are not as in there, by key.
      cache: folder of compiled programs.
      processes: how many.
      program: Python that each process runs as it starts.
      compiler: flags of XLA.
    """
    self.folder, self.processes, self.struck = folder, processes, 1
    if processes > 1:
      settings = settings | {'mesh.fsdp': processes, 'mesh.data': 1}
    self._command = [sys.executable, '-m', 'ttt_jax.cli.train', f'--config={config}']
    self._command += [f'--config.{name}={value}' for name, value in settings.items()]
    self._command += [f'--workdir={folder}', '--supervise']
    site = self._site = folder.parent / 'site'
    site.mkdir()
    site.joinpath('sitecustomize.py').write_text(program, encoding='utf-8')
    paths = [str(site), str(pathlib.Path.cwd()), os.environ.get('PYTHONPATH', '')]
    self._environment = os.environ | {
      'PYTHONPATH': os.pathsep.join(path for path in paths if path),
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': str(cache),
      'XLA_FLAGS': f'--xla_force_host_platform_device_count=1 {compiler}',
    }
    self._started: list[subprocess.Popen] = []
    self._port = _free_port()

  def start(self, number: int = 0) -> None:
    """Starts the supervisor of a process; it has a session of its own."""
    command = self._command
    if self.processes > 1:
      place = [f'--coordinator=127.0.0.1:{self._port}', f'--processes={self.processes}']
      command = [*command, '--distributed', *place, f'--process={number}', '--heartbeat=10']
    with (self.folder.parent / f'log-{number}.txt').open('ab') as log:
      made = subprocess.Popen(
        command, stderr=log, stdout=log, env=self._environment, start_new_session=True
      )
    self._started.append(made)

  def start_all(self) -> None:
    """Starts all supervisors."""
    for number in range(self.processes):
      self.start(number)

  def said(self, text: str) -> int:
    """How often the processes have logged this."""
    logs = self.folder.parent.glob('log-*.txt')
    return sum(log.read_text(errors='replace').count(text) for log in logs)

  def last_words(self) -> str:
    """The end of what the processes have logged."""
    logs = sorted(self.folder.parent.glob('log-*.txt'))
    return '\n'.join(log.read_text(errors='replace')[-4000:] for log in logs)

  def supervisors(self) -> list[int]:
    """Processes that start those that train."""
    return [process.pid for process in self._started if process.poll() is None]

  def children(self, of_workers: bool = False) -> list[int]:
    """Processes that train, or those that make batches for them."""
    trainers = [child for process in self._started for child in children_of(process.pid)]
    if not of_workers:
      return trainers
    workers = [worker for trainer in trainers for worker in children_of(trainer)]
    return [worker for worker in workers if b'spawn_main' in _command_of(worker)]

  def kill(self) -> None:
    """Kills all that came of it, at once."""
    while found := self.alive():
      for pid in found:
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
      for process in self._started:
        process.wait()
    self._started = []

  def alive(self) -> list[int]:
    """All processes that came of it: who inherited its environment."""
    mark, found = f'{self._site}{os.pathsep}'.encode(), []
    for path in pathlib.Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError):
        if mark in (path / 'environ').read_bytes():
          found.append(int(path.name))
    return found

  def wait(self) -> None:
    """Waits for its end.

    Raises:
      Lost: it does not come, or is not a good one.
    """
    for number, process in enumerate(self._started):
      try:
        code = process.wait(PATIENCE)
      except subprocess.TimeoutExpired:
        raise Lost('no end') from None
      if code:
        lines = (self.folder.parent / f'log-{number}.txt').read_text(errors='replace')
        last = [line for line in lines.splitlines() if 'error' in line.lower()]
        raise Lost(f'exit code {code}: {last[-1] if last else ""}')

  def stop(self) -> int:
    """Asks for its end by SIGTERM, and waits for it; how many processes it left behind.

    Raises:
      Lost: it does not come, or is not that of a run that was told to stop.
    """
    for process in self._started:
      process.send_signal(signal.SIGTERM)
    for process in self._started:
      try:
        code = process.wait(PATIENCE)
      except subprocess.TimeoutExpired:
        raise Lost('no end') from None
      if code != 128 + signal.SIGTERM:
        raise Lost(f'exit code {code} at SIGTERM')
    end = time.monotonic() + 10  # what was killed may take its time
    while (left := self.alive()) and time.monotonic() < end:
      time.sleep(0.1)
    return len(left)

  @property
  def over(self) -> bool:
    """Whether some supervisor has ended."""
    return any(process.poll() is not None for process in self._started)


def _free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as free:
    return free.getsockname()[1]


def children_of(pid: int) -> list[int]:
  """Processes that a process started."""
  found = []
  for path in pathlib.Path(f'/proc/{pid}/task').glob('*/children'):  # each thread has its own
    with contextlib.suppress(OSError):
      found += map(int, path.read_text().split())
  return found


def _command_of(pid: int) -> bytes:
  try:
    return pathlib.Path(f'/proc/{pid}/cmdline').read_bytes()
  except OSError:
    return b''


def send(pid: int, number: int) -> None:
  """Sends a signal.

  Raises:
    Missed: there is no such process any more.
  """
  try:
    os.kill(pid, number)
  except ProcessLookupError as error:
    raise Missed(f'process {pid} had ended') from error
