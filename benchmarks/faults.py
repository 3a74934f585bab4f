"""A campaign of faults: what is done to a run, how often it recovered, how often it was lost.

    python benchmarks/faults.py --data=DATA [--quick] [--json FILE] [--times N] [--faults "a;b"]

Trains a tiny model by `ttt-train --supervise` on a data set of records, say the quickstart's,
once undisturbed and then again and again, and does something to it at a random moment, of all
its life or of the stage that is named. It is recovered if it ends by itself, in ten minutes,
with the parameters of the undisturbed run: bit for bit in one process, to 1e-4 in two. All else
is lost, with a reason. A fault that came too late to meet the run is missed, and tried again. A
run of two processes is killed several times: all of these are recovered, or lost, as it is.

What is in --json FILE already counts: a campaign can be spread over hours. Two faults need more
rights than others have: a disk that is full is a small one in memory, and a clock that jumps
or a disk that is slow is so for Python alone, not for the machine.
"""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import record
from supervised import PATIENCE, Lost, Missed, Run, send

from ttt_jax import checkpoint, parameters

FORMULA = 'recovered = ended with the parameters of the undisturbed run; lost = all else'
CONFIG = 'configs/base.py'
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
  'guard.failures': 20,  # kills may come before there is progress
  'guard.hang': 60.0,
  'guard.grace': 20.0,
}
KILLS = 5  # of a run of two processes
# Of two processes on CPUs one compiles at each start: JAX's cache has another key for each.
COMPILER = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'


def _after(run: Run, seconds: float, look: Callable[[], Any]) -> Any:
  """What `look` finds after so many seconds, or as soon as there is something.

  Raises:
    Missed: the run has ended before.
    Lost: it has not, and nothing is found for longer than a run may take.
  """
  start = time.monotonic()
  while not (found := look()) or time.monotonic() < start + seconds:
    if run.over:
      raise Missed('the run had ended')
    if time.monotonic() > start + seconds + PATIENCE:
      raise Lost('no end')
    time.sleep(0.02)
  return found


def _again(strike: Callable[[Run, float, random.Random], None], times: int):
  """Strikes, and strikes again at what has been started again, until the run is over."""

  def fault(run: Run, seconds: float, rng: random.Random) -> None:
    run.start_all()
    for number in range(times):
      try:
        strike(run, seconds, rng)
      except Missed:
        if not number:
          raise
        break
      run.struck = number + 1
    run.wait()

  return fault


def _strike(number: int, workers: bool = False, times: int = 1):
  """Sends a signal to one of the processes, at any moment."""

  def strike(run: Run, seconds: float, rng: random.Random) -> None:
    found = _after(run, rng.uniform(0, seconds), lambda: run.children(workers))
    send(rng.choice(found), number)

  return _again(strike, times)


def _kill_in(stage: Callable[[Run], set], within: float, times: int):
  """Kills one of the processes, at a moment of the seconds from the beginning of a stage.

  Args:
    stage: what is seen of it; something new, when it begins.
    within: seconds.
    times: how often.
  """

  def strike(run: Run, seconds: float, rng: random.Random) -> None:
    seen = stage(run)  # an earlier kill may have left something, which goes some time

    def begun() -> set:
      nonlocal seen
      new, seen = (now := stage(run)) - seen, now
      return new

    _after(run, 0, begun)
    time.sleep(rng.uniform(0, within))
    found = run.children()
    if not found:
      raise Missed('nobody was there')
    send(rng.choice(found), signal.SIGKILL)

  return _again(strike, times)


def _saving(run: Run) -> set:
  return {path for path in run.folder.glob('checkpoints/*') if not path.name.isdigit()}


def _evaluating(run: Run) -> set:
  """One for each step: an evaluation that goes on writes to the file that it began."""
  return set(run.folder.glob('evaluation/items/*.jsonl'))


def _kill_in_restoring(run: Run, seconds: float, rng: random.Random) -> None:
  """Kills all that train, and one of those that come in their place, as it restores."""
  _after(run, rng.uniform(0, seconds), lambda: checkpoint.steps(run.folder))
  before = run.said(_RESTORES)
  for pid in run.children():
    with contextlib.suppress(Missed):  # it went with the others
      send(pid, signal.SIGKILL)
  _after(run, 0, lambda: run.said(_RESTORES) > before)
  time.sleep(rng.uniform(0, 0.5))
  if found := run.children():
    send(rng.choice(found), signal.SIGKILL)


def _damage(what: Callable[[pathlib.Path, random.Random], None]):
  """Kills everything, damages a file of the newest step, and starts again."""

  def fault(run: Run, seconds: float, rng: random.Random) -> None:
    run.start_all()
    _after(run, rng.uniform(0, seconds), lambda: checkpoint.steps(run.folder)[1:])
    run.kill()
    newest = checkpoint.folder(run.folder, checkpoint.latest(run.folder))
    what(rng.choice(sorted(path for path in newest.rglob('*') if path.is_file())), rng)
    run.start_all()
    run.wait()

  return fault


def _flip(path: pathlib.Path, rng: random.Random) -> None:
  content = bytearray(path.read_bytes())
  content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
  path.write_bytes(content)


def _full(run: Run, seconds: float, rng: random.Random) -> None:
  """The disk is full for a while once a step is saved."""
  subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64m', 'none', run.folder], check=True)
  try:
    run.start_all()
    _after(run, rng.uniform(0, seconds), lambda: checkpoint.steps(run.folder))
    ballast = run.folder / 'ballast'
    with contextlib.suppress(OSError), ballast.open('wb') as file:
      while True:
        file.write(bytes(2**12))
    time.sleep(rng.uniform(0.5, 5))
    ballast.unlink()
    run.wait()
    shutil.copytree(run.folder, run.folder.with_name('kept'))
  finally:
    run.kill()
    subprocess.run(['umount', run.folder], check=True)
  shutil.copytree(run.folder.with_name('kept'), run.folder, dirs_exist_ok=True)


def _read_only(run: Run, seconds: float, rng: random.Random) -> None:
  """Nothing can be made in the folder of the checkpoints for a while."""
  run.start_all()
  folder = run.folder / 'checkpoints'
  _after(run, rng.uniform(0, seconds), lambda: [folder] if folder.exists() else [])
  root = os.getuid() == 0  # whom rights do not stop
  lock, unlock = (
    (['chattr', '+i'], ['chattr', '-i']) if root else (['chmod', '555'], ['chmod', '755'])
  )
  subprocess.run([*lock, folder], check=True)
  try:
    time.sleep(rng.uniform(0.5, 5))
  finally:
    subprocess.run([*unlock, folder], check=True)
  run.wait()


def _nothing(run: Run, seconds: float, rng: random.Random) -> None:
  run.start_all()
  run.wait()


def _jump(run: Run, seconds: float, rng: random.Random) -> None:
  _nothing(run, seconds, rng)
  if not run.said(_JUMPED):
    raise Missed('no process lived until its clock jumped')


def _late(run: Run, seconds: float, rng: random.Random) -> None:
  """The process at which the others meet comes up late."""
  for number in range(1, run.processes):
    run.start(number)
  time.sleep(rng.uniform(0, 20))
  run.start(0)
  run.wait()


_RESTORES = 'parameters on'  # the last that is logged before
_JUMPED = 'the clock has jumped'
_JUMP = f"""
import random, sys, time
_now, _start = time.time, time.time()
_when, _far = random.uniform(0, 10), random.choice((-3600, 3600))
_told = []
def _time():
  if _now() - _start < _when:
    return _now()
  if not _told:
    _told.append(print({_JUMPED!r}, file=sys.stderr))
  return _now() + _far
time.time = _time
"""
_SLOW = """
import os, time
def _slow(do):
  def slowly(*a, **k):
    time.sleep(0.2)
    return do(*a, **k)
  return slowly
for _name in ('rename', 'replace', 'mkdir', 'fsync'):
  setattr(os, _name, _slow(getattr(os, _name)))
"""
_SUITE = """
tasks:
- {name: transcribe, where: {task: transcribe}, limit: 2, metrics: [wer]}
"""


class Fault(NamedTuple):
  """What is done to a run.

  Attributes:
    act: starts the run, does it, and waits for its end; takes how long a run takes.
    processes: how many it has.
    settings: of it.
    program: see `Run`.
  """

  act: Callable[[Run, float, random.Random], None]
  processes: int = 1
  settings: dict[str, Any] = {}
  program: str = ''


_WORKER = {'data.workers': 1}
FAULTS = {
  'kill -9': Fault(_strike(signal.SIGKILL)),
  'kill -9 of one of two': Fault(_strike(signal.SIGKILL, times=KILLS), 2),
  'kill -9 of one of two, saving': Fault(_kill_in(_saving, 0.2, KILLS), 2),
  'kill -9 of one of two, restoring': Fault(_again(_kill_in_restoring, KILLS), 2),
  'kill -9 of one of two, evaluating': Fault(
    _kill_in(_evaluating, 1.0, KILLS), 2, {'evaluation.every': 50}
  ),
  'kill -9 of a worker of two': Fault(_strike(signal.SIGKILL, True, KILLS), 2, _WORKER),
  'kill -9 of a worker': Fault(_strike(signal.SIGKILL, True), 1, _WORKER),
  'stopped worker': Fault(_strike(signal.SIGSTOP, True), 1, _WORKER),
  'SIGTERM': Fault(_strike(signal.SIGTERM)),
  'SIGTERM to one of two': Fault(_strike(signal.SIGTERM), 2),
  'late coordinator': Fault(_late, 2),
  'full disk': Fault(_full),
  'read-only folder': Fault(_read_only),
  'clock that jumps by an hour': Fault(_jump, program=_JUMP),
  'slow disk': Fault(_nothing, program=_SLOW),
  'flipped bit': Fault(_damage(_flip)),
  'zeros': Fault(_damage(lambda path, _: path.write_bytes(bytes(path.stat().st_size)))),
  'cut file': Fault(_damage(lambda path, _: os.truncate(path, path.stat().st_size // 2))),
  'missing file': Fault(_damage(lambda path, _: path.unlink())),
}


def common(flags) -> dict[str, Any]:
  """Settings of all runs."""
  return SETTINGS | {'train.steps': flags.steps, 'data.directory': flags.data}


def outcome(flags, name: str, rng: random.Random, wanted, seconds: float) -> tuple[str, int]:
  """'recovered', 'missed', or why a run was lost; and how often it was struck."""
  fault = FAULTS[name]
  with tempfile.TemporaryDirectory() as home:
    folder = pathlib.Path(home, 'run')
    settings = common(flags) | fault.settings
    folder.mkdir()
    if 'evaluation.every' in settings:
      settings['evaluation.suite'] = folder.parent / 'suite.yaml'
      settings['evaluation.suite'].write_text(f'data: {flags.data}\n{_SUITE}')
    run = Run(folder, CONFIG, settings, flags.cache, fault.processes, fault.program, COMPILER)
    try:
      fault.act(run, seconds, rng)
      _compare(folder, wanted, flags.steps, 0 if fault.processes == 1 else 1e-4)
    except Missed:
      return 'missed', 1
    except Lost as lost:
      return str(lost), run.struck
    finally:
      run.kill()
  return 'recovered', run.struck


def _compare(folder: pathlib.Path, wanted, steps: int, tolerance: float) -> None:
  try:
    got, last = parameters.restore(folder), checkpoint.latest(folder)
  except checkpoint.CheckpointError as error:
    raise Lost(str(error)) from error
  if last != steps:
    raise Lost(f'ended at step {last}')
  try:
    pairs = zip(*map(jax.tree.leaves, (got, wanted)), strict=True)
    far = np.max([np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in pairs])
  except ValueError as error:
    raise Lost(f'parameters of another kind: {error}') from error
  if not far <= tolerance:  # as no NaN is
    raise Lost(f'other parameters, by {far}')


def undisturbed(flags, home: pathlib.Path):
  """Parameters of a run to which nothing happens, and how long it takes."""
  run = Run(home / 'run', CONFIG, common(flags), flags.cache, compiler=COMPILER)
  start = time.monotonic()
  run.start_all()
  run.wait()
  return parameters.restore(run.folder), time.monotonic() - start


def main():
  """Runs the campaign."""
  parser = record.parser(__doc__, 'each fault once')
  parser.add_argument('--data', required=True, help='a data set of records')
  parser.add_argument('--times', type=int, default=10, help='of each fault, or a few more')
  parser.add_argument('--steps', type=int, default=150, help='of the run')
  parser.add_argument('--faults', default=';'.join(FAULTS), help='which, by semicolons')
  flags = parser.parse_args()
  if unknown := set(flags.faults.split(';')) - FAULTS.keys():
    parser.error(f'--faults: there is no {min(unknown)!r}; there are {"; ".join(FAULTS)}')
  flags.data = pathlib.Path(flags.data).resolve()
  results = record.begin(FORMULA, ('jax', 'orbax-checkpoint', 'grain'), steps=flags.steps)
  times, table = 1 if flags.quick else flags.times, {}
  if flags.json and pathlib.Path(flags.json).exists():
    table = json.loads(pathlib.Path(flags.json).read_text(encoding='utf-8'))['faults']
  with tempfile.TemporaryDirectory() as home:
    flags.cache = pathlib.Path(home, 'cache')
    for turn in ('first', 'second'):  # the first one compiles
      folder = pathlib.Path(home, turn)
      folder.mkdir()
      wanted, seconds = undisturbed(flags, folder)
    print(f'undisturbed: {seconds:.0f} s', flush=True)
    print(f'{"fault":>36} {"tried":>6} {"recovered":>10} {"lost":>5} {"missed":>7}', flush=True)
    for name in flags.faults.split(';'):
      line = table.setdefault(name, {'tried': 0, 'recovered': 0, 'missed': 0, 'lost': []})
      while line['tried'] < times and line['missed'] <= times:
        attempt = line['tried'] + line['missed']
        rng = random.Random(f'{name} {attempt}')
        said, struck = outcome(flags, name, rng, wanted, seconds)
        line['tried'] += struck * (said != 'missed')
        line['missed'] += said == 'missed'
        line['recovered'] += struck * (said == 'recovered')
        line['lost'] += [] if said in ('missed', 'recovered') else [said]
        record.save(results | {'seconds': seconds, 'faults': table}, flags.json)
      tried, recovered, missed = (line[key] for key in ('tried', 'recovered', 'missed'))
      counts = f'{tried:6} {recovered:10} {len(line["lost"]):5} {missed:7}'
      print(f'{name:>36} {counts}', *line['lost'], flush=True)


if __name__ == '__main__':
  main()
