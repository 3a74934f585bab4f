"""Fuzzing of every reader of files and requests that come from outside, guided by coverage.

    python benchmarks/fuzz.py [--minutes 10] [--only NAMES] [--quick] [--json FILE]

`tests/fuzz/targets.py` has the readers. Each is fed by atheris in a process of its own, so that
one that crashes or hangs is no end to the others. An input that a reader may not fall over, and
does, goes to `tests/fuzz/corpus/`, where tests replay it; so do a few that went new ways.

The time of readers that is in --json FILE already counts: hours can be spread over days.
SIGTERM ends it within two minutes, and what was done is kept. Take a reader out of FILE when it
has changed.
"""

import collections
import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from typing import Any, NamedTuple

import atheris
import record
from absl import logging

ROOT = pathlib.Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / 'tests' / 'fuzz')]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

silent = contextlib.redirect_stderr(io.StringIO())  # it tells of each module
with silent, atheris.instrument_imports(include=['ttt_jax', 'data_pipelines']):
  import mutator
  import target as target_lib
  import targets

FORMULA = (
  'executions a second = inputs read / seconds of one process on a CPU; new = edges of the '
  'code of ttt_jax and data_pipelines that seeds and corpus do not reach'
)
HANG = 10  # seconds
SMALL = 2048  # bytes of an input that is kept because it went a new way
MOST = 30  # inputs that are kept of a target
_PICKED = 15.0  # seconds to choose them
_BROKEN = 99  # exit code of a process that failed apart from the reader
_DEATHS = 5  # of processes, after which a target is left
_STRETCH = 120  # seconds of a process: code that atheris watches takes ever more memory in it
_OWN = (str(ROOT / 'ttt_jax'), str(ROOT / 'data_pipelines'))
_told: list[int] = []  # signals that want this to end


class Result(NamedTuple):
  """What came of a target.

  Attributes:
    executions: inputs that were read.
    seconds: of the process, on a CPU.
    edges: that seeds and corpus reach.
    new: edges beyond them.
    crashes: what happened, with the file of the input, one of each kind.
    kept: inputs that were added to the corpus because they went new ways.
  """

  executions: int
  seconds: float
  edges: int
  new: int
  crashes: list[str]
  kept: int

  @property
  def rate(self) -> float:
    """Executions a second."""
    return self.executions / max(self.seconds, 1e-9)


_NOTHING = Result(0, 0.0, 0, 0, [], 0)


def fuzz(name: str, seconds: float, folder: pathlib.Path) -> Result:
  """Feeds one target for so many seconds on a CPU; `folder` is empty."""
  inputs, log = folder / 'inputs', folder / 'log'
  crashes, artifacts = folder / 'crashes', folder / 'artifacts'
  for each in (inputs, crashes, artifacts):
    each.mkdir()
  executions, spent, deaths, edges = 0, 0.0, 0, None
  while (left := round(seconds - spent)) >= 1 and deaths < _DEATHS and not _told:
    log.unlink(missing_ok=True)
    stretch = min(left, _STRETCH)
    status, used = _forked(log, _feed, name, stretch, inputs, crashes, artifacts)
    spent += used
    deaths += status != 0
    text = log.read_text(errors='replace')
    if status == _BROKEN:
      sys.exit(f'{name} cannot be fed; is what it needs installed?\n{text[-2000:]}')
    executions += max(map(int, re.findall(r'^#(\d+)\s', text, re.M)), default=0)
    reached = [int(n) for n in re.findall(r'cov: (\d+)', text)] or [0]
    edges = reached[0] if edges is None else edges
    for path in artifacts.iterdir():
      where = 'hang' if path.name.startswith('timeout') else f'died ({status})'
      path.rename(crashes / f'{where} {path.name}')
  found = [_kept(name, path) for path in sorted(crashes.iterdir())]
  before = len(targets.corpus(name))
  _forked(log, _pick, name, inputs)
  kept = len(targets.corpus(name)) - before
  return Result(executions, spent, edges or 0, reached[-1] - (edges or 0), found, kept)


def _forked(log: pathlib.Path, function, *arguments) -> tuple[int, float]:
  """Calls a function in a process of its own: its status, and seconds on a CPU."""
  sys.stdout.flush()
  pid = os.fork()
  if not pid:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with log.open('ab') as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    try:
      function(*arguments)
      os._exit(0)
    except BaseException:
      traceback.print_exc()
      os._exit(_BROKEN)
  _, status, used = os.wait4(pid, 0)
  return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def _feed(name: str, seconds: int, inputs, crashes, artifacts) -> None:
  """Until time is up, or a library dies of an input; goes on from the inputs that are there."""
  logging.set_verbosity(logging.FATAL)
  with tempfile.TemporaryDirectory() as folder:
    made = targets.TARGETS[name](pathlib.Path(folder))
    known = [*made.seeds, *targets.corpus(name)]
    for data in known:
      (inputs / _name(data)).write_bytes(data)
    words = inputs.with_name('words')
    words.write_text('\n'.join(map(_word, {*mutator.VALUES, *_words(known)})))
    sizes: dict[str, int] = collections.defaultdict(lambda: sys.maxsize)

    def one(data: bytes) -> None:
      try:
        target_lib.feed(made, data)
      except BaseException as error:  # whatever it may not raise
        what = _what(error)
        if len(data) < sizes[what]:
          sizes[what] = len(data)
          (crashes / what).write_bytes(data)

    def changed(data: bytes, most: int, seed: int) -> bytes:
      rng = random.Random(seed)
      if rng.random() < 0.5:
        return mutator.mutated(data, known, rng)[:most]
      return atheris.Mutate(data, most)

    flags = {
      'max_total_time': seconds,
      'timeout': HANG,
      'rss_limit_mb': 0,  # `within_room` sees to that
      'max_len': max(4096, *map(len, known)),
      'artifact_prefix': f'{artifacts}/',
      'dict': words,
      'print_final_stats': 1,
    }
    argv = [sys.argv[0], *(f'-{key}={value}' for key, value in flags.items()), str(inputs)]
    atheris.Setup(argv, one, custom_mutator=changed)
    with target_lib.within_room():
      atheris.Fuzz()


def _what(error: BaseException) -> str:
  """The kind of an error and the last line of the project that it passed, as a file's name."""
  frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(_OWN)]
  at = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
  path = os.path.relpath(at.filename, ROOT).replace('/', '.')
  return f'{type(error).__name__} {path}:{at.lineno}'


def _words(known: list[bytes]) -> list[bytes]:
  return [word for data in known for word in re.findall(rb'[A-Za-z_][\w-]{2,30}', data[:9999])]


def _word(value: bytes) -> str:
  return '"' + ''.join(f'\\x{byte:02x}' for byte in value[:60]) + '"'


def _name(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:12]


def _kept(name: str, crash: pathlib.Path) -> str:
  """Puts what a reader fell over into the corpus; tells of it."""
  data = crash.read_bytes()
  return f'{crash.name}: {_keep(name, data)} ({len(data)} bytes)'


def _keep(name: str, data: bytes) -> pathlib.Path:
  path = targets.CORPUS / name / _name(data)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return path.relative_to(ROOT)


def _pick(name: str, inputs: pathlib.Path) -> None:
  """Keeps the smallest inputs that go where no seed and no input that is kept goes."""
  with tempfile.TemporaryDirectory() as folder, target_lib.within_room():
    made = targets.TARGETS[name](pathlib.Path(folder))
    known = [*made.seeds, *targets.corpus(name)]
    seen = set().union(*(_ways(made, data) for data in known))
    room, last = MOST - len(targets.corpus(name)), time.monotonic() + _PICKED
    for path in sorted(inputs.iterdir(), key=lambda path: path.stat().st_size):
      data = path.read_bytes()
      if room <= 0 or len(data) >= SMALL or time.monotonic() > last:
        return
      if new := _ways(made, data) - seen:
        seen |= new
        room -= 1
        _keep(name, data)


def _ways(made: target_lib.Target, data: bytes) -> set[tuple[str, int, int]]:
  """Pairs of lines of the project's files, one behind the other."""
  found = set()

  def enter(frame, event, argument):
    name = frame.f_code.co_filename
    if not name.startswith(_OWN):
      return None
    last = 0

    def line(frame, event, argument):
      nonlocal last
      found.add((name, last, frame.f_lineno))
      last = frame.f_lineno
      return line

    return line

  sys.settrace(enter)
  try:
    # A crash was told when it was found; what hangs ends the choice.
    with contextlib.suppress(Exception), target_lib.within_time():
      target_lib.feed(made, data)
  finally:
    sys.settrace(None)
  return found


def _sum(before: Result, now: Result) -> Result:
  """Both; edges are of now, when the corpus has what was kept before."""
  return now._replace(
    executions=before.executions + now.executions,
    seconds=round(before.seconds + now.seconds, 1),
    crashes=before.crashes + now.crashes,
    kept=before.kept + now.kept,
  )


def _line(result: Result) -> dict[str, Any]:
  return result._asdict() | {'a_second': round(result.rate, 1)}


def _show(name: str, made: Result) -> None:
  print(
    f'{name:20} {made.executions:10,} {made.rate:8,.0f} {made.seconds:8.0f} '
    f'{made.edges:6} {made.new:5} {made.kept:4} {len(made.crashes):7}',
    flush=True,
  )
  for crash in made.crashes:
    print(f'  {crash}', flush=True)


def main() -> None:
  """Reads the flags, feeds the targets, and prints what came of it."""
  flags = record.parser(__doc__, 'two seconds of each target')
  flags.add_argument('--minutes', type=float, default=10, help='of each target')
  flags.add_argument('--only', help='names of targets, with commas between')
  given = flags.parse_args()
  chosen = given.only.split(',') if given.only else list(targets.TARGETS)
  if unknown := set(chosen) - set(targets.TARGETS):
    sys.exit(f'no such target: {", ".join(unknown)}; there are {", ".join(targets.TARGETS)}')
  done: dict[str, Result] = {}
  if given.json and pathlib.Path(given.json).exists():
    kept = json.loads(pathlib.Path(given.json).read_text(encoding='utf-8'))['targets']
    done = {name: Result(*(one[key] for key in Result._fields)) for name, one in kept.items()}
  results = record.begin(FORMULA, ['atheris', 'jax'])
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  signal.signal(signal.SIGTERM, lambda number, frame: _told.append(number))
  print(f'{"target":20} executions a second  seconds  edges   new kept crashes')
  for name in chosen:
    if _told:
      return
    left = (2.0 if given.quick else 60 * given.minutes) - done.get(name, _NOTHING).seconds
    if left >= 1:
      with tempfile.TemporaryDirectory() as folder:
        done[name] = _sum(done.get(name, _NOTHING), fuzz(name, left, pathlib.Path(folder)))
      record.save(
        results | {'targets': {key: _line(done[key]) for key in sorted(done)}}, given.json
      )
    _show(name, done[name])


if __name__ == '__main__':
  main()
