"""From sources to a data set: what is done is kept, what is rejected is kept, and counted.

    OUT.partial/job.json           the settings; others are refused
    OUT.partial/pieces/            what is done of it (`piecework`)
    OUT.partial/moves.json         the last step was begun: where each shard was, and goes
    OUT.partial/whole/             what becomes OUT
    OUT.partial/quarantine.jsonl   what was rejected, if that was too much

The data set depends on the content of the files and on the settings alone, byte for byte:
on no process count, and on no run that was ended before.
"""

import collections
import contextlib
import fcntl
import glob
import importlib.metadata
import itertools
import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from data_pipelines import items, records, shards
from data_pipelines.preparing import piecework, workers
from ttt_jax import assets as assets_lib
from ttt_jax import errors, folders, json_file

QUARANTINE = 'quarantine.jsonl'
SUMMARY = 'summary.json'  # counts, for people and for inspection
ENOUGH = 1000  # items that tell what share of all is rejected

# Is told how many pieces are done and how many there are, and the counts of all so far.
Progress = Callable[[int, int, piecework.Counts], None]


class JobError(errors.UserError):
  """A preparation cannot go on from what was done before."""


class RejectedError(errors.UserError):
  """Too many records were rejected."""


class Job(NamedTuple):
  """What is to be made of what.

  Attributes:
    pieces: of files (`sources.Piece`), in the order in which their records are to lie.
    read: gives what stands in a piece.
    convert: makes records of it.
    assets: what the records' ids mean.
    settings: JSON values by name: all that `read` and `convert` depend on, but the assets.
    split: where records go that are not held out.
    held_out: the share of records, by their keys, that go to the split 'test'.
    max_rejected: which share of items may be rejected. It may be changed on the way.
  """

  pieces: Sequence[Any]
  read: Callable[[Any], Iterable[items.Item | items.Rejected]]
  convert: items.Convert
  assets: assets_lib.Assets
  settings: dict[str, Any]
  split: str = 'train'
  held_out: float = 0.0
  max_rejected: float = 0.01

  @property
  def depends(self) -> dict[str, Any]:
    """JSON values: everything but the pieces that decides what comes out."""
    return {
      **self.settings,
      **self.assets.fingerprints,
      'split': self.split,
      'held_out': self.held_out,
      'format': shards.VERSION,
      'array_record': importlib.metadata.version('array_record'),
    }


class Result(NamedTuple):
  """What was made.

  Attributes:
    splits: records of each split.
    counts: of everything.
    reasons: how many items were rejected for each, the most frequent first.
    kept: how many of the pieces were done before.
    new: counts of what was not.
    seconds: that it took.
  """

  splits: dict[str, int]
  counts: piecework.Counts
  reasons: dict[str, int]
  kept: int
  new: piecework.Counts
  seconds: float


def prepare(
  out: str | pathlib.Path,
  job: Job,
  processes: int = 1,
  progress: Progress = lambda done, pieces, counts: None,
) -> Result:
  """Makes the data set `out`, or goes on making it.

  Args:
    out: its folder; a data set that was there is replaced at the end.
    job: what to make.
    processes: how many work on it. With more than one, `job.read` and `job.convert` are
      pickled, and the program must guard its main module (`if __name__ == '__main__'`).
    progress: is told how far it is.

  Raises:
    JobError: another run is at it, or began it with other settings.
    RejectedError: more than `job.max_rejected` of the items were rejected: of the first
      `ENOUGH` and more that were read, or of all. The message names the quarantine file.
    WorkerError: a process was killed.
    DataError: a file cannot be read, or there are no records.
    FolderError: `out` holds something else, or cannot be written.
  """
  with opened(out, job) as state:
    counts = {name: summary.counts for name, summary in state.done.items()}
    total = state.counts

    def told(number: int, done: bool, word: Any) -> None:
      nonlocal total
      name, now = todo[number].name, word.counts if done else word
      total += now - counts.get(name, piecework.Counts())
      counts[name] = now
      if done:
        state.done[name] = word
      if total.items >= ENOUGH:
        state.refuse_rejected(total)
      progress(len(state.done), len(state.tasks), total)

    todo = [task for task in state.tasks if task.name not in state.done]
    progress(len(state.done), len(state.tasks), total)
    workers.run(state.work, todo, processes, told)
    return state.finish()


class State:
  """A preparation under way; made by `opened`.

  Attributes:
    tasks: all work, in order.
    done: what is done of it, by name.
    work: does it.
    spent: where the folder of the preparation lies when the data set is whole; before, None.
  """

  spent: pathlib.Path | None = None

  def __init__(self, out: pathlib.Path, job: Job):
    self._out, self._job, self._began = out, job, time.monotonic()
    self.folder = partial_folder(out)
    self._pieces = self.folder / 'pieces'
    self._pieces.mkdir(exist_ok=True)
    self._undo_moves()
    for path in piecework.begun(self._pieces):
      path.unlink()
    (self.folder / QUARANTINE).unlink(missing_ok=True)
    self.tasks = [piecework.task(piece) for piece in job.pieces]
    made = {task.name: piecework.done(self._pieces, task.name) for task in self.tasks}
    if len(made) < len(self.tasks):
      raise records.DataError('a piece of a file is given twice')
    self.done = {name: summary for name, summary in made.items() if summary}
    self._kept, self._before = len(self.done), self.counts
    self.work = piecework.Work(
      str(self._pieces), job.read, job.convert, job.assets.vocabulary, job.split, job.held_out
    )

  @property
  def counts(self) -> piecework.Counts:
    """Of all that is done."""
    return sum((summary.counts for summary in self.done.values()), piecework.Counts())

  def refuse_rejected(self, counts: piecework.Counts) -> None:
    """Raises RejectedError if `counts` has too many rejected items."""
    if counts.rejected <= self._job.max_rejected * counts.items:
      return
    path = self.folder / QUARANTINE
    self._collect_quarantine(path)
    raise RejectedError(
      f'{counts.rejected} of {counts.items} records read were rejected, which is more than '
      f'the share of {self._job.max_rejected:g} that may be (--max_rejected). {path} has all '
      'of them with their reasons. Mend the files or raise the share, and run again: what is '
      'done of files that stay as they are is kept. After mending a sound that a manifest '
      'names, touch the manifest, for only its own size and time are looked at'
    )

  def finish(self) -> Result:
    """Puts the data set into its place, when all is done.

    Raises:
      RejectedError: too many items were rejected.
      DataError: there are no records.
    """
    summaries = [self.done[task.name] for task in self.tasks]
    self.refuse_rejected(self.counts)
    made, files = collections.defaultdict(list), collections.defaultdict(list)
    for task, summary in zip(self.tasks, summaries):
      for split, shard in summary.splits.items():
        made[split].append(shard)
        files[split].append(piecework.shard_path(self._pieces, task.name, split))
    if self._job.split not in made:
      raise records.DataError(f'{self._out}: no records for the split {self._job.split!r}')
    with folders.writing(self._out):
      return self._assemble(summaries, made, files)

  def _assemble(self, summaries, made, files) -> Result:
    whole = self._move(files)
    self._collect_quarantine(whole / QUARANTINE)
    self._job.assets.save(whole / assets_lib.DIRECTORY)
    counts = self.counts
    reasons = sum((collections.Counter(s.reasons) for s in summaries), collections.Counter())
    reasons = dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))
    splits = {split: sum(shard.records for shard in made[split]) for split in sorted(made)}
    summary = {'splits': splits, **counts._asdict(), 'reasons': reasons}
    (whole / SUMMARY).write_text(
      json.dumps(summary, indent=1, ensure_ascii=False) + '\n', encoding='utf-8'
    )
    shards.finish(whole, dict(sorted(made.items())), self._job.assets.fingerprints)
    folders.become(whole, self._out, shards.CONTENT)
    self.spent = self.folder
    with contextlib.suppress(OSError):  # the data set is there: nothing fails any more
      spent = f'{self.folder.name}.spent.{uuid.uuid4().hex[:8]}'
      self.spent = self.folder.rename(self.folder.with_name(spent))
    new, seconds = counts - self._before, time.monotonic() - self._began
    return Result(splits, counts, reasons, self._kept, new, seconds)

  def _collect_quarantine(self, path: pathlib.Path) -> None:
    """All that was rejected so far, in the order of input; of unfinished pieces too."""
    with path.open('wb') as file:
      for task in self.tasks:
        part = piecework.quarantine_path(self._pieces, task.name)
        for each in [part] if part.exists() else piecework.begun(self._pieces, part.name):
          with each.open('rb') as content:
            file.writelines(line for line in content if line.endswith(b'\n'))

  def _move(self, files: dict[str, list[pathlib.Path]]) -> pathlib.Path:
    """The folder that is to become the data set, with the shards in it."""
    whole = self.folder / 'whole'
    moves = shards.homes(whole, files)
    told = [[str(p.relative_to(self.folder)) for p in move] for move in moves]
    json_file.write(self.folder / 'moves.json', told)
    shards.records_folder(whole).mkdir(parents=True)
    for path, home in moves:
      path.rename(home)
    return whole

  def _undo_moves(self) -> None:
    """If the last step was begun and not ended, all is as before it."""
    path = self.folder / 'moves.json'
    if path.exists():
      for before, after in _moves(path):
        if after.exists():
          after.rename(before)
      shutil.rmtree(self.folder / 'whole', ignore_errors=True)
      path.unlink()


@contextlib.contextmanager
def opened(out: str | pathlib.Path, job: Job) -> Iterator[State]:
  """A preparation, for nobody else meanwhile; `prepare` says what is raised."""
  out = pathlib.Path(out).absolute()
  with contextlib.ExitStack() as stack:
    with folders.writing(out):
      folders.refuse_used(out, shards.CONTENT)
      folder = partial_folder(out)
      folder.mkdir(parents=True, exist_ok=True)
      lock = stack.enter_context((folder / 'lock').open('w'))
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        raise JobError(f'{folder}: another process is at work on it') from error
      _refuse_another(folder, job)
      for left in out.parent.glob(glob.escape(f'{folder.name}.spent.') + '*'):
        folders.discard(left)  # of one that was killed at its very end
      state = State(out, job)
    yield state
  if state.spent:  # not earlier: on networks a folder in which a file is open cannot be deleted
    folders.discard(state.spent)


def partial_folder(out: pathlib.Path) -> pathlib.Path:
  """Where what is done of the data set `out` is kept until it is whole."""
  return out.with_name(out.name + '.partial')


def _refuse_another(folder: pathlib.Path, job: Job) -> None:
  """Raises JobError if what lies in `folder` was made with other settings."""
  path, mine = folder / 'job.json', json.loads(json.dumps(job.depends))
  if not path.exists():
    json_file.write(path, mine)
  try:
    theirs = json_file.read(path)
  except ValueError as error:
    raise _damaged(path, str(error)) from error
  if not isinstance(theirs, dict):
    raise _damaged(path, 'no JSON object')
  for name in sorted(theirs.keys() | mine.keys()):
    if theirs.get(name) != mine.get(name):
      raise JobError(
        f'{folder} was begun with {name} {theirs.get(name)}, and is now to go on with '
        f'{mine.get(name)}: use the former, choose another folder, or delete {folder} to begin '
        'anew'
      )


def _moves(path: pathlib.Path) -> list[tuple[pathlib.Path, pathlib.Path]]:
  """Where each shard was, and where it was to go: both below the folder of the file.

  Raises:
    JobError: the file is damaged.
  """
  try:
    moves = [
      (path.parent / before, path.parent / after) for before, after in json_file.read(path)
    ]
  except (ValueError, TypeError) as error:
    raise _damaged(path, str(error)) from error
  root = os.path.realpath(path.parent)
  for each in itertools.chain.from_iterable(moves):
    if '\0' in str(each):
      raise _damaged(path, f'{str(each)!r} is no path')
    if os.path.commonpath([root, os.path.realpath(each.parent)]) != root:
      raise _damaged(path, f'{each} lies elsewhere')
  return moves


def _damaged(path: pathlib.Path, reason: str) -> JobError:
  return JobError(f'{path}: damaged ({reason}): delete {path.parent} to begin anew')
