"""A long training with faults: does anything grow that should not?

    python benchmarks/soak.py --data=DATA [--hours 2] [--quick] [--json FILE]

Trains the quickstart's model by `ttt-train --supervise` on its data set, with one process that
makes batches, and every few minutes kills or stops a process at random. It looks at the trainer
all the time: the memory of its processes, open files, files in shared memory, and how many
programs it has compiled. A life is from a start of the trainer to its end; within one, from the
second minute on, nothing may grow. After the last one all checkpoints are held against their
hashes, and no process may be left.
"""

import contextlib
import pathlib
import random
import signal
import statistics
import tempfile
import time
from typing import NamedTuple

import record
import supervised

from ttt_jax import checkpoint, hashes

FORMULA = """growth = mean memory of the last fifth of a life / that of its first fifth, - 1
memory: proportional set size of the trainer and its workers; of lives of ten samples or more"""
WARM, EVERY = 120.0, 5.0  # seconds: a life's beginning that does not count; between samples
_COMPILED = 'Finished XLA compilation'
_PROGRAM = 'import os\nos.environ["JAX_LOG_COMPILES"] = "1"\n'
WEIGHTS = {'worker killed': 6, 'worker stopped': 1, 'trainer killed': 2}


class Sample(NamedTuple):
  """What there is at a moment.

  Attributes:
    age: of the trainer, seconds.
    memory: MiB.
    files: that are open.
    shared: files in shared memory, of the whole machine.
    compiled: programs, since the trainer began.
  """

  age: float
  memory: float
  files: int
  shared: int
  compiled: int


def sample(run: supervised.Run, trainer: int, begin: float, compiled: int) -> Sample:
  """Looks at a trainer.

  Raises:
    OSError: it has just ended.
  """
  family = [trainer, *supervised.children_of(trainer)]
  memory = 0
  for pid in family:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
      lines = pathlib.Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
      memory += next(int(line.split()[1]) for line in lines if line.startswith('Pss:'))
  files = len(list(pathlib.Path(f'/proc/{trainer}/fd').iterdir()))
  shared = len(list(pathlib.Path('/dev/shm').iterdir()))
  return Sample(
    round(time.monotonic() - begin),
    memory / 1024,
    files,
    shared,
    run.said(_COMPILED) - compiled,
  )


def strike(run: supervised.Run, trainer: int, rng: random.Random) -> str:
  """Does something to it; says what."""
  what = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
  workers = run.children(of_workers=True)
  if what == 'trainer killed' or not workers:
    supervised.send(trainer, signal.SIGKILL)
    return 'trainer killed'
  supervised.send(workers[0], signal.SIGKILL if what == 'worker killed' else signal.SIGSTOP)
  return what


def soak(run: supervised.Run, seconds: float, pause: float, warm: float) -> dict:
  """Lives, each with its samples, and the faults."""
  rng, end = random.Random(0), time.monotonic() + seconds
  lives: list[list[Sample]] = []
  struck, trainer, begin, compiled = [], None, 0.0, 0
  next_fault = time.monotonic() + warm + rng.expovariate(1 / pause)
  while time.monotonic() < end:
    time.sleep(EVERY)
    if run.over:
      raise supervised.Lost('the supervisor has given up')
    found = run.children()
    if found and found[0] != trainer:
      trainer, begin, compiled = found[0], time.monotonic(), run.said(_COMPILED)
      lives.append([])
    with contextlib.suppress(OSError, IndexError, supervised.Missed):
      made = sample(run, trainer, begin, compiled)
      if made.age >= warm:
        lives[-1].append(made)
      if time.monotonic() > next_fault:
        next_fault = time.monotonic() + rng.expovariate(1 / pause)
        struck.append((round(end - time.monotonic()), strike(run, trainer, rng)))
        print(f'{struck[-1][0]:6} s before the end: {struck[-1][1]}', flush=True)
  return {'faults': struck, 'lives': lives}


def growth(life: list[Sample]) -> dict[str, float]:
  """How a life's end differs from its beginning."""
  fifth = max(1, len(life) // 5)
  first, last = life[:fifth], life[-fifth:]

  def median(part, name):
    return statistics.median(getattr(one, name) for one in part)

  memory = [statistics.mean(one.memory for one in part) for part in (first, last)]
  return {
    'minutes': round((life[-1].age - life[0].age) / 60, 1),
    'memory': memory[1],
    'growth': memory[1] / memory[0] - 1,
    **{name: median(last, name) - median(first, name) for name in Sample._fields[2:]},
  }


def main():
  """Soaks, and prints a table of lives."""
  parser = record.parser(__doc__, 'four minutes, with a fault a minute')
  parser.add_argument('--data', required=True, help='a data set of records')
  parser.add_argument('--hours', type=float, default=2.0)
  flags = parser.parse_args()
  results = record.begin(FORMULA, ('jax', 'orbax-checkpoint', 'grain'), hours=flags.hours)
  seconds, pause, warm = 3600 * flags.hours, 300.0, WARM
  if flags.quick:
    seconds, pause, warm = 240.0, 60.0, 20.0
  settings = {
    'data.directory': pathlib.Path(flags.data).resolve(),
    'data.workers': 1,
    'train.steps': 1_000_000,
    'train.checkpoint_every': 200,
    'guard.hang': 60.0,
    'guard.backoff': 0.5,
  }
  with tempfile.TemporaryDirectory() as home:
    folder = pathlib.Path(home, 'run')
    cache = pathlib.Path(home, 'cache')
    run = supervised.Run(folder, 'configs/tiny.py', settings, cache, program=_PROGRAM)
    try:
      run.start_all()
      found = soak(run, seconds, pause, warm)
      left = run.stop()
    finally:
      run.kill()
    steps = checkpoint.steps(folder)
    damaged = {n: hashes.damage(checkpoint.folder(folder, n)) for n in steps}
  long = [growth(life) for life in found['lives'] if len(life) >= 10]
  print(f'{"minutes":>8} {"MiB":>7} {"growth":>8} {"files":>6} {"shared":>7} {"compiled":>9}')
  for one in long:
    print(
      f'{one["minutes"]:8} {one["memory"]:7.0f} {one["growth"]:8.2%} {one["files"]:6.0f} '
      f'{one["shared"]:7.0f} {one["compiled"]:9.0f}'
    )
  print(f'{len(found["faults"])} faults; step {max(steps)}; damaged: {damaged}')
  print(f'processes that were left behind: {left}', flush=True)
  record.save(results | found | {'growth': long, 'step': max(steps), 'left': left}, flags.json)


if __name__ == '__main__':
  main()
