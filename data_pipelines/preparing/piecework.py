"""One piece of input to one shard a split: the work that is shared out among processes.

What a piece becomes depends on the piece and the settings alone, and lies under a name made
from both its place and its file's state. So work that is done stays done, whoever did it, and a
piece of a file that was changed is another piece. Its summary is written last: a piece that
has one is done.
"""

import collections
import contextlib
import hashlib
import json
import operator
import os
import pathlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from data_pipelines import items, records, shards
from ttt_jax import folders, json_file
from ttt_jax import vocabulary as vocabulary_lib

HELD_OUT = 'test'  # the split of the records that are held out
_EVERY = 0.2  # seconds between two words of how far the work is
_PARTIAL = '.partial'


class Counts(NamedTuple):
  """How much there is of what; codes are tokens that the codec made of audio."""

  items: int = 0
  records: int = 0
  tokens: int = 0
  codes: int = 0
  rejected: int = 0

  def __add__(self, other: 'Counts') -> 'Counts':
    return Counts(*map(operator.add, self, other))

  def __sub__(self, other: 'Counts') -> 'Counts':
    return Counts(*map(operator.sub, self, other))


class Summary(NamedTuple):
  """What became of a piece.

  Attributes:
    splits: the shard of each split that got records of it.
    counts: of all splits together.
    reasons: how many items were rejected for each.
  """

  splits: dict[str, shards.Shard]
  counts: Counts
  reasons: dict[str, int]


class Task(NamedTuple):
  """A piece to work on.

  Attributes:
    name: of its files; another piece, or another state of its file, has another.
    piece: a tuple of plain values with the `path` and first `line` of what is to be read.
  """

  name: str
  piece: Any

  def __str__(self) -> str:
    return str(items.Place(self.piece.path, self.piece.line))


def task(piece: Any) -> Task:
  """The work on a piece of a file as it is now.

  Raises:
    DataError: the file is not there.
  """
  try:
    state = os.stat(piece.path)
  except OSError as error:
    raise records.DataError(f'{piece.path}: cannot be read ({error})') from error
  depends = [*piece, state.st_size, state.st_mtime_ns]
  digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode())
  return Task(digest.hexdigest()[:24], piece)


class Work(NamedTuple):
  """How pieces become shards; may be pickled, if its functions may.

  Attributes:
    folder: where the shards go.
    read: gives what stands in a piece.
    convert: makes records of it.
    vocabulary: of the records.
    split: where records go that are not held out.
    held_out: the share of records, by their keys, that go to the split `HELD_OUT`.
  """

  folder: str
  read: Callable[[Any], Iterable[items.Item | items.Rejected]]
  convert: items.Convert
  vocabulary: vocabulary_lib.Vocabulary
  split: str
  held_out: float

  def __call__(self, todo: Task, report: Callable[[Counts], None]) -> Summary:
    """Works on a piece; `report` is told now and then how far it is.

    Raises:
      DataError: the file cannot be read, or was changed meanwhile.
      FolderError: the folder cannot be written.
    """
    with _output(self.folder, todo.name) as output:
      counts, reasons, said = Counts(), collections.Counter(), time.monotonic()
      read = _Counted(self.read(todo.piece))
      for made in self._checked(self.convert(read), todo):
        if isinstance(made, items.Rejected):
          output.reject(made)
          reasons[kind(made.reason)] += 1
          counts += Counts(rejected=1)
        else:
          tokens = made.document.tokens
          codes = len(self.vocabulary.to_codes(tokens))
          output.add(self._split(made.key), made)
          counts += Counts(records=1, tokens=len(tokens), codes=codes)
        if time.monotonic() - said > _EVERY:
          output.flush()
          report(counts._replace(items=read.count))
          said = time.monotonic()
      if task(todo.piece) != todo:
        raise records.DataError(f'{todo.piece.path}: was changed while it was read; run again')
      counts = counts._replace(items=read.count)
      return output.finish(counts, dict(reasons))

  def _checked(self, made: Iterable, todo: Task) -> Iterator[records.Record | items.Rejected]:
    for each in made:
      try:
        if isinstance(each, records.Record):
          records.check_record(each, self.vocabulary)
      except records.DataError as error:
        each = items.Rejected(items.Place(todo.piece.path, 0), str(error), '')
      yield each

  def _split(self, key: str) -> str:
    # Copies of an item (`key#1`) stay together.
    item = re.sub(r'#\d+$', '', key)
    drawn = int.from_bytes(hashlib.sha256(item.encode()).digest()[:8], 'big') / 2**64
    return HELD_OUT if drawn < self.held_out else self.split


class _Counted:
  """Passes on what it iterates over, and counts it."""

  def __init__(self, inner: Iterable):
    self._inner, self.count = inner, 0

  def __iter__(self):
    for each in self._inner:
      self.count += 1
      yield each


@contextlib.contextmanager
def _output(folder: str, name: str) -> Iterator['_Output']:
  # Another process may be at the same piece, if it was given up for dead.
  suffix = f'{_PARTIAL}.{uuid.uuid4().hex}'
  with contextlib.ExitStack() as stack:
    with folders.writing(folder):
      path = quarantine_path(folder, name)
      # What was rejected so far stays when the piece fails.
      file = stack.enter_context(path.with_name(path.name + suffix).open('xb'))
    yield _Output(pathlib.Path(folder), name, suffix, file)


class _Output:
  """The files of one piece: written aside, then named; the summary last."""

  def __init__(self, folder: pathlib.Path, name: str, suffix: str, quarantine: BinaryIO):
    self._folder, self._name, self._suffix = folder, name, suffix
    self._quarantine = quarantine
    self._writers: dict[str, shards.Writer] = {}

  def _aside(self, path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + self._suffix)

  def add(self, split: str, record: records.Record) -> None:
    if split not in self._writers:
      path = self._aside(shard_path(self._folder, self._name, split))
      self._writers[split] = shards.Writer(path)
    self._writers[split].add(records.values(record))

  def reject(self, rejected: items.Rejected) -> None:
    place, reason, excerpt = rejected
    line = {'file': place.path, 'line': place.line, 'reason': reason, 'excerpt': excerpt}
    text = json.dumps(line, ensure_ascii=False) + '\n'
    with folders.writing(self._folder):
      self._quarantine.write(text.encode('utf-8', 'replace'))

  def flush(self) -> None:
    with folders.writing(self._folder):
      self._quarantine.flush()

  def finish(self, counts: Counts, reasons: dict[str, int]) -> Summary:
    made = {split: writer.close() for split, writer in sorted(self._writers.items())}
    summary = Summary(made, counts, reasons)
    content = {
      'splits': {split: shard._asdict() for split, shard in made.items()},
      'counts': counts._asdict(),
      'reasons': reasons,
    }
    with folders.writing(self._folder):
      self._quarantine.flush()
      os.fsync(self._quarantine.fileno())
      paths = [shard_path(self._folder, self._name, split) for split in made]
      for path in [*paths, quarantine_path(self._folder, self._name)]:
        self._aside(path).rename(path)
      path = self._folder / f'{self._name}.json'
      with self._aside(path).open('x', encoding='utf-8') as file:
        file.write(json.dumps(content, indent=1) + '\n')
        file.flush()
        os.fsync(file.fileno())
      self._aside(path).rename(path)
    return summary


def done(folder: pathlib.Path, name: str) -> Summary | None:
  """What became of the piece of this name; None if it is not done, or its files are gone."""
  try:
    content = json_file.read(folder / f'{name}.json')
    made = {split: shards.Shard(**shard) for split, shard in content['splits'].items()}
    counts, reasons = Counts(**content['counts']), dict(content['reasons'])
    numbers = [*counts, *reasons.values(), *(n for shard in made.values() for n in shard[:2])]
    if not all(type(number) is int and number >= 0 for number in numbers):
      return None
  except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
    return None  # of what is damaged, nothing is known
  paths = [shard_path(folder, name, split) for split in made]
  if not all(path.exists() for path in [*paths, quarantine_path(folder, name)]):
    return None
  return Summary(made, counts, reasons)


def shard_path(folder: str | pathlib.Path, name: str, split: str) -> pathlib.Path:
  """Where the shard of a piece lies."""
  return pathlib.Path(folder, f'{name}.{split}.array_record')


def quarantine_path(folder: str | pathlib.Path, name: str) -> pathlib.Path:
  """Where the rejected records of a piece lie, a JSON object on each line."""
  return pathlib.Path(folder, f'{name}.quarantine.jsonl')


def begun(folder: pathlib.Path, name: str = '') -> list[pathlib.Path]:
  """Files that were begun and not ended, of the piece of this name, or of all."""
  return sorted(folder.glob(f'{name}*{_PARTIAL}.*'))


def kind(reason: str) -> str:
  """What reasons of one kind have in common: no numbers, nothing quoted."""
  return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", '…', reason)
