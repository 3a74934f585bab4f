"""A long training with faults: does anything grow that should not?

    source launch/environment.sh speech  # sets how memory is taken, as for the quickstart
    "$VENV/bin/python" benchmarks/soak.py --data=DATA [--hours 2] [--quick] [--json FILE]

Trains the quickstart's model by `ttt-train --supervise` on its data set, with one process that
makes batches, and every few minutes kills or stops a process at random. All the while it looks
at each process, the supervisor, the trainer and its worker: at its memory, its open files, and
how many programs the trainer has compiled. From the second minute of a process on, until its
end, nothing may grow. Behind the end of the run no process may be left, nothing in shared
memory, and all checkpoints must be as they were written. Otherwise it says what is wrong, and
ends with exit code 1. Let nothing else run on the machine.

FILE is written anew every minute: whoever stops it keeps what was measured until then.
"""

import contextlib
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import record
import supervised

from ttt_jax import checkpoint, hashes

FORMULA = """growth = memory in the last fifth of a process's samples / in the first fifth - 1
memory: anonymous and shared (its proportional part), not what is mapped from files; the upper
quartile, since it falls while a trainer waits for a new worker. Compiled: of the first sample
and the last. All else: medians"""
EVERY = 5.0  # seconds between samples
KEPT = 60.0  # seconds from one writing of what was measured to the next
_COMPILED = 'Finished XLA compilation'
_PROGRAM = """
import os
os.environ |= {'JAX_LOG_COMPILES': '1', 'TQDM_MININTERVAL': '60'}
"""
SETTINGS = {
  'data.workers': 1,
  'optimizer.learning_rate': 5e-4,  # which may stay as it is for hours
  'train.steps': 1_000_000,
  'train.checkpoint_every': 200,
  'guard.backoff': 0.5,
}
WEIGHTS = {'worker killed': 8, 'worker stopped': 1, 'trainer killed': 1}  # lives of all lengths


class Pace(NamedTuple):
  """How fast things go, in seconds.

  Attributes:
    whole: of the soak.
    pause: from one fault to the next, in the mean.
    warm: age of a process from which on it counts.
    long: so long at least it must then be there, to be judged.
    hang: after which a trainer without batches ends.
    calm: at the end, without faults, so that the run ends as it would by itself.
    growth: of memory, that is put up with.
  """

  whole: float
  pause: float = 300.0
  warm: float = 120.0
  long: float = 300.0
  hang: float = 100.0
  calm: float = 240.0
  growth: float = 0.02


class Sample(NamedTuple):
  """What a process has at a moment.

  Attributes:
    age: seconds since it was seen first.
    memory: MiB.
    files: that are open.
    shared: files in shared memory, of the whole machine.
    compiled: programs, by a trainer, since it was seen first.
  """

  age: float
  memory: float
  files: int
  shared: int
  compiled: int


class Life(NamedTuple):
  """A process.

  Attributes:
    kind: what it does.
    begin: when it was seen first.
    compiled: programs that had been compiled before.
    samples: of the time that counts.
  """

  kind: str
  begin: float
  compiled: int
  samples: list[Sample]


Who = tuple[int, str]  # a process: its number, which may come again, and when it began


def who(pid: int) -> Who:
  """Whom a number means now.

  Raises:
    OSError: there is no such process any more.
  """
  stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  return pid, stat.rpartition(')')[2].split()[19]


def memory(pid: int) -> float:
  """MiB of a process.

  Raises:
    OSError: it has just ended.
  """
  lines = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
  sizes = [line.split() for line in lines if line.startswith(('Pss_Anon:', 'Pss_Shmem:'))]
  return sum(int(size) for _, size, _ in sizes) / 1024


def look(run: supervised.Run, lives: dict[Who, Life], waiting: set[Who], warm: float) -> None:
  """Takes a sample of each process that is old enough, and does not wait for its end."""
  compiled, now = run.said(_COMPILED), time.monotonic()
  there = {pid: 'supervisor' for pid in run.supervisors()}
  there |= {pid: 'trainer' for pid in run.children()}
  there |= {pid: 'worker' for pid in run.children(of_workers=True)}
  for pid, kind in there.items():
    with contextlib.suppress(OSError):  # it has just ended
      life = lives.setdefault(who(pid), Life(kind, now, compiled, []))
      age = now - life.begin
      if age < warm or who(pid) in waiting:
        continue
      programs = compiled - life.compiled if kind == 'trainer' else 0
      files = len(os.listdir(f'/proc/{pid}/fd'))
      one = Sample(round(age), memory(pid), files, len(shared()), programs)
      life.samples.append(one)


def strike(run: supervised.Run, rng: random.Random) -> str:
  """Does something to a process; says what.

  Raises:
    Missed: it had ended.
  """
  what = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
  workers, trainers = run.children(of_workers=True), run.children()
  if what == 'trainer killed' or not workers:
    if not trainers:
      raise supervised.Missed('nobody was there')
    supervised.send(trainers[0], signal.SIGKILL)
    return 'trainer killed'
  supervised.send(workers[0], signal.SIGKILL if what == 'worker killed' else signal.SIGSTOP)
  return what


def soak(run: supervised.Run, pace: Pace, found: dict[str, Any], keep: Callable) -> None:
  """Fills `found`: lives, each with its samples, the faults, and how it ended.

  Args:
    run: that was started.
    pace: how fast things go.
    found: as `nothing_yet` makes it.
    keep: is called now and then.
  """
  rng, start, last = random.Random(0), time.monotonic(), 0.0
  waiting, struck, ended = set(), found['faults'], ''
  next_fault = pace.warm + rng.expovariate(1 / pace.pause)
  while (now := time.monotonic() - start) < pace.whole:
    time.sleep(EVERY)
    if run.over:
      ended = 'the supervisor has given up'
      break
    look(run, found['lives'], waiting, pace.warm)
    if next_fault < now < pace.whole - pace.calm:
      with contextlib.suppress(supervised.Missed):
        struck.append((round(now), strike(run, rng)))
        print(f'{struck[-1][0]:6} s: {struck[-1][1]}', flush=True)
        if struck[-1][1] == 'worker stopped':  # until the trainer is started again
          for pid in [*run.children(), *run.children(of_workers=True)]:
            with contextlib.suppress(OSError):
              waiting.add(who(pid))
      next_fault = now + rng.expovariate(1 / pace.pause)
    if now > last + KEPT:
      keep()
      last = now
  try:
    found['processes'] = run.stop()
  except supervised.Lost as lost:
    ended = ended or str(lost)
    found['processes'] = len(run.alive())
  found['ended'] = ended


def nothing_yet() -> dict[str, Any]:
  """What is known of a soak before it begins."""
  return {'faults': [], 'lives': {}, 'ended': 'it was stopped from outside', 'processes': 0}


def kept(found: dict[str, Any], pace: Pace) -> dict[str, Any]:
  """The same for a file, with the growth of all lives that can be judged."""
  lives = found['lives'].values()
  long = [life for life in lives if len(life.samples) * EVERY >= pace.long]
  samples = {'samples are': Sample._fields, 'lives': [life._asdict() for life in lives]}
  return found | samples | {'growth': [growth(life) for life in long]}


def growth(life: Life) -> dict[str, Any]:
  """How a life's end differs from its beginning."""
  samples = life.samples
  fifth = max(1, len(samples) // 5)

  def middle(part, name):
    values = [getattr(one, name) for one in part]
    return np.quantile(values, 0.75 if name == 'memory' else 0.5).item()

  before, after = (
    {name: middle(part, name) for name in Sample._fields[1:-1]} | {'compiled': one.compiled}
    for part, one in ((samples[:fifth], samples[0]), (samples[-fifth:], samples[-1]))
  )
  return {
    'kind': life.kind,
    'minutes': round((samples[-1].age - samples[0].age) / 60, 1),
    **after,
    'growth': after['memory'] / before['memory'] - 1,
    **{f'more_{name}': after[name] - before[name] for name in Sample._fields[2:]},
  }


def shared() -> set[str]:
  """Names of what is in shared memory, of the whole machine."""
  return set(os.listdir('/dev/shm'))


def damaged(folder: pathlib.Path) -> list[str]:
  """Steps of a run that are not as they were written, now or when it went on from them."""
  aside = [f'{path.parent.name}/{path.name}' for path in folder.glob(f'{checkpoint.DAMAGED}/*')]
  saved = checkpoint.steps(folder)
  return aside + [str(n) for n in saved if hashes.damage(checkpoint.folder(folder, n))]


def show(found: dict[str, Any]) -> None:
  """Prints what came of it."""
  print(f'{"":>10} minutes     MiB   growth  files  more  shared  more  compiled  more')
  for one in found['growth']:
    print(
      f'{one["kind"]:>10} {one["minutes"]:7} {one["memory"]:7.0f} {one["growth"]:8.2%} '
      f'{one["files"]:6.0f} {one["more_files"]:5.0f} {one["shared"]:7.0f} '
      f'{one["more_shared"]:5.0f} {one["compiled"]:9.0f} {one["more_compiled"]:5.0f}'
    )
  print(f'{len(found["faults"])} faults; step {found["step"]}; damaged: {found["damaged"]}')
  print(f'left behind: {found["processes"]} processes, in shared memory {found["shared"]}')
  print(f'ended otherwise than it was told to: {found["ended"] or "no"}', flush=True)


def wrong(found: dict[str, Any], pace: Pace) -> list[str]:
  """What should not be so, a line for each."""
  lines = [f'it ended otherwise than it was told to: {found["ended"]}'] * bool(found['ended'])
  for name in ('processes', 'shared', 'damaged'):
    if found[name]:
      lines.append(f'{name}: {found[name]}')
  for one in found['growth']:
    grown = [f'memory by {one["growth"]:.2%}'] * (one['growth'] > pace.growth)
    more = {name: one[f'more_{name}'] for name in Sample._fields[2:]}
    grown += [f'{name} by {value:.0f}' for name, value in more.items() if value >= 1]
    if grown:
      lines.append(f'a {one["kind"]} has grown in {one["minutes"]} minutes: {", ".join(grown)}')
  if not any(one['compiled'] for one in found['growth'] if one['kind'] == 'trainer'):
    lines.append('no trainer lived long enough, or its log tells of no compilation')
  return lines


def main():
  """Soaks, and prints a table of lives."""
  parser = record.parser(__doc__, 'six minutes, with a fault a minute')
  parser.add_argument('--data', required=True, help='a data set of records')
  parser.add_argument('--hours', type=float, default=2.0)
  flags = parser.parse_args()
  pace = Pace(3600 * flags.hours)
  if flags.quick:  # what is young still grows
    pace = Pace(360.0, pause=60.0, warm=30.0, long=30.0, hang=60.0, calm=120.0, growth=0.2)
  results = record.begin(FORMULA, ('jax', 'orbax-checkpoint', 'grain'), **pace._asdict())
  settings = SETTINGS | {'data.directory': pathlib.Path(flags.data).resolve()}
  settings |= {'guard.hang': pace.hang}
  before, found = shared(), nothing_yet()

  def keep() -> None:
    record.save(results | kept(found, pace), flags.json)

  keep()  # a file that cannot be written is known now
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  with tempfile.TemporaryDirectory() as home:
    folder, cache = pathlib.Path(home, 'run'), pathlib.Path(home, 'cache')
    run = supervised.Run(folder, 'configs/tiny.py', settings, cache, program=_PROGRAM)
    try:
      run.start_all()
      soak(run, pace, found, keep)
    finally:
      run.kill()
      keep()
    steps = checkpoint.steps(folder)
    found |= {'shared': sorted(shared() - before), 'step': max(steps, default=0)}
    found['damaged'] = damaged(folder)
    if found['ended']:
      print(run.last_words())
  keep()
  show(found := kept(found, pace))
  if lines := wrong(found, pace):
    sys.exit('\n'.join(lines))


if __name__ == '__main__':
  main()
