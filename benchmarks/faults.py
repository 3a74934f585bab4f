"""A campaign of faults: what is done to a run, how often it recovered, how often it was lost.

    python benchmarks/faults.py --data=DATA [--quick] [--json FILE] [--times N] [--faults a,b]

Trains a tiny model by `ttt-train --supervise` on a data set of records, say the quickstart's,
once undisturbed and then again and again, and does something to it at a random moment between
the start of its first process and its end. It is recovered if it ends by itself, within ten
minutes, with the parameters of the undisturbed run: bit for bit in one process, to 1e-4 in two.
All else is lost, with a reason. A fault that came too late to meet the run is not counted.
"""

import argparse
import contextlib
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import record

from ttt_jax import checkpoint

FORMULA = 'recovered = ended with the parameters of the undisturbed run; lost = all else'
PATIENCE = 600  # seconds that a run may take
SETTINGS = {
  'model.layers': 1,
  'model.width': 32,
  'model.mlp_width': 48,
  'model.head_width': 8,
  'model.dtype': 'float32',
  'model.remat': 'none',
  'model.attention': 'dense',
  'data.row_length': 256,
  'data.batch_size': 4,
  'train.log_every': 1,
  'train.checkpoint_every': 10,
  'train.keep': 3,
  'guard.backoff': 0.5,
  'guard.hang': 60.0,
}


class Lost(Exception):
  """A run that did not come through; why."""


class Missed(Exception):
  """A fault that did not meet its run."""


class Run:
  """A run under supervision, in one process or several."""

  def __init__(self, flags: argparse.Namespace, folder: pathlib.Path, processes: int, **more):
    """Starts nothing yet; `more` are settings, `__` for the dot."""
    self.folder, self._processes = folder, processes
    settings = SETTINGS | {'train.steps': flags.steps, 'data.directory': flags.data}
    settings |= {name.replace('__', '.'): value for name, value in more.items()}
    if processes > 1:
      settings['mesh.fsdp'] = processes
      settings['mesh.data'] = 1
    self._command = [sys.executable, '-m', 'ttt_jax.cli.train', '--config=configs/base.py']
    self._command += [f'--config.{name}={value}' for name, value in settings.items()]
    self._command += [f'--workdir={folder}', '--supervise']
    self._environment = os.environ | {
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': str(flags.cache),
      'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
    }
    self._started: list[subprocess.Popen] = []
    self._port = _free_port()

  def start(self, number: int = 0) -> None:
    """Starts the supervisor of a process; it has a session of its own."""
    command = self._command
    if self._processes > 1:
      place = [f'--coordinator=127.0.0.1:{self._port}', f'--processes={self._processes}']
      command = [*command, '--distributed', *place, f'--process={number}', '--heartbeat=10']
    with (self.folder.parent / f'log-{number}.txt').open('ab') as log:
      made = subprocess.Popen(
        command, stderr=log, stdout=log, env=self._environment, start_new_session=True
      )
    self._started.append(made)

  def start_all(self) -> None:
    """Starts all supervisors."""
    for number in range(self._processes):
      self.start(number)

  def children(self, of_workers: bool = False) -> list[int]:
    """Processes that train, or those that make batches for them."""
    trainers = [child for process in self._started for child in _children(process.pid)]
    if not of_workers:
      return trainers
    workers = [worker for trainer in trainers for worker in _children(trainer)]
    return [worker for worker in workers if b'spawn_main' in _command_of(worker)]

  def kill(self) -> None:
    """Kills all that it started, at once."""
    for process in self._started:
      with contextlib.suppress(ProcessLookupError):  # of its session nobody is left
        os.killpg(process.pid, signal.SIGKILL)
      process.wait()
    self._started = []

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

  @property
  def over(self) -> bool:
    """Whether some supervisor has ended."""
    return any(process.poll() is not None for process in self._started)


def _free_port() -> int:
  with socket.create_server(('127.0.0.1', 0)) as free:
    return free.getsockname()[1]


def _children(pid: int) -> list[int]:
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


def _signal(pid: int, number: int) -> None:
  try:
    os.kill(pid, number)
  except ProcessLookupError as error:
    raise Missed(f'process {pid} had ended') from error


def _after(run: Run, seconds: float, look: Callable[[], list[int]]) -> list[int]:
  """The processes that `look` finds after so many seconds, or as soon as there are some."""
  end = time.monotonic() + seconds
  while time.monotonic() < end or not look():
    if run.over:
      raise Missed('the run had ended')
    time.sleep(0.02)
  return look()


def _strike(number: int, workers: bool = False):
  """Sends a signal to one of the processes."""

  def fault(run: Run, seconds: float, rng: random.Random) -> None:
    run.start_all()
    found = _after(run, seconds, lambda: run.children(workers))
    _signal(rng.choice(found), number)
    run.wait()

  return fault


def _damage(what: Callable[[pathlib.Path], None]):
  """Kills everything, damages a file of the newest step, and starts again."""

  def fault(run: Run, seconds: float, rng: random.Random) -> None:
    run.start_all()
    _after(run, seconds, lambda: checkpoint.steps(run.folder)[1:])
    run.kill()
    newest = checkpoint.folder(run.folder, checkpoint.latest(run.folder))
    what(rng.choice(sorted(path for path in newest.rglob('*') if path.is_file())))
    run.start_all()
    run.wait()

  return fault


def _flip(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[random.randrange(len(content))] ^= 1 << random.randrange(8)
  path.write_bytes(content)


def _full(run: Run, seconds: float, rng: random.Random) -> None:
  """No file may grow beyond some KB for a while, as on a disk without room."""
  run.start_all()
  (trainer, *_) = _after(run, seconds, run.children)
  try:
    usual = resource.prlimit(trainer, resource.RLIMIT_FSIZE)
    resource.prlimit(trainer, resource.RLIMIT_FSIZE, (2**13, usual[1]))
    time.sleep(rng.uniform(0.5, 3))
    resource.prlimit(trainer, resource.RLIMIT_FSIZE, usual)
  except ProcessLookupError as error:
    raise Missed('the process had ended') from error
  run.wait()


def _late(run: Run, seconds: float, rng: random.Random) -> None:
  """The process at which the others meet comes up late."""
  for number in range(1, run._processes):
    run.start(number)
  time.sleep(min(seconds, 20))
  run.start(0)
  run.wait()


# Each with how many processes, more settings, and what is done.
FAULTS = {
  'kill -9': (1, {}, _strike(signal.SIGKILL)),
  'kill -9 of one of two': (2, {}, _strike(signal.SIGKILL)),
  'SIGTERM': (1, {}, _strike(signal.SIGTERM)),
  'SIGTERM to one of two': (2, {}, _strike(signal.SIGTERM)),
  'late coordinator': (2, {}, _late),
  'kill -9 of a worker': (1, {'data__workers': 1}, _strike(signal.SIGKILL, True)),
  'stopped worker': (1, {'data__workers': 1}, _strike(signal.SIGSTOP, True)),
  'full disk': (1, {}, _full),
  'flipped bit': (1, {}, _damage(_flip)),
  'zeros': (1, {}, _damage(lambda path: path.write_bytes(bytes(path.stat().st_size)))),
  'cut file': (1, {}, _damage(lambda path: os.truncate(path, path.stat().st_size // 2))),
  'missing file': (1, {}, _damage(os.remove)),
}


def outcome(flags, name: str, rng: random.Random, wanted, seconds: float) -> str:
  """'recovered', 'missed', or why a run was lost."""
  processes, settings, fault = FAULTS[name]
  with tempfile.TemporaryDirectory() as home:
    run = Run(flags, pathlib.Path(home, 'run'), processes, **settings)
    try:
      fault(run, rng.uniform(0, seconds), rng)
      _compare(run.folder, wanted, flags.steps, 0 if processes == 1 else 1e-4)
    except Missed:
      return 'missed'
    except Lost as lost:
      return str(lost)
    finally:
      run.kill()
  return 'recovered'


def _compare(folder: pathlib.Path, wanted, steps: int, tolerance: float) -> None:
  if checkpoint.latest(folder) != steps:
    raise Lost(f'ended at step {checkpoint.latest(folder)}')
  got = checkpoint.restore_params(folder)
  far = [
    np.abs(np.asarray(a) - np.asarray(b)).max()
    for a, b in zip(*map(jax.tree.leaves, (got, wanted)))
  ]
  if not max(far) <= tolerance:
    raise Lost(f'other parameters, by {max(far)}')


def undisturbed(flags, home: pathlib.Path):
  """Parameters of a run to which nothing happens, and how long it takes."""
  run = Run(flags, home / 'run', 1)
  start = time.monotonic()
  run.start_all()
  run.wait()
  return checkpoint.restore_params(run.folder), time.monotonic() - start


def main():
  """Runs the campaign."""
  parser = record.parser(__doc__, 'each fault once')
  parser.add_argument('--data', required=True, help='a data set of records')
  parser.add_argument('--times', type=int, default=10, help='how often each fault is tried')
  parser.add_argument('--steps', type=int, default=60, help='of the run')
  parser.add_argument('--faults', default=','.join(FAULTS), help='which, by commas')
  parser.add_argument('--seed', type=int, default=0)
  flags = parser.parse_args()
  flags.data = pathlib.Path(flags.data).resolve()
  results = record.begin(FORMULA, ('jax', 'orbax-checkpoint', 'grain'), steps=flags.steps)
  rng, times = random.Random(flags.seed), 1 if flags.quick else flags.times
  table = {}
  with tempfile.TemporaryDirectory() as home:
    flags.cache = pathlib.Path(home, 'cache')
    for turn in ('first', 'second'):  # the first one compiles
      folder = pathlib.Path(home, turn)
      folder.mkdir()
      wanted, seconds = undisturbed(flags, folder)
    print(f'undisturbed: {seconds:.0f} s', flush=True)
    print(f'{"fault":>24} {"tried":>6} {"recovered":>10} {"lost":>5}', flush=True)
    for name in flags.faults.split(','):
      said = [outcome(flags, name, rng, wanted, seconds) for _ in range(times)]
      met = [each for each in said if each != 'missed']
      lost = [each for each in met if each != 'recovered']
      table[name] = {'tried': len(met), 'recovered': len(met) - len(lost), 'lost': lost}
      counts = f'{len(met):6} {len(met) - len(lost):10} {len(lost):5}'
      print(f'{name:>24} {counts}', *lost, flush=True)
  record.save(results | {'seconds': seconds, 'faults': table}, flags.json)


if __name__ == '__main__':
  main()
