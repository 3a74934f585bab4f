"""The items of a task: the records that are asked, and those that cannot be."""

import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import records
from ttt_jax import chat
from ttt_jax.evaluation import suite


class Failure(NamedTuple):
  """An item that could not be judged.

  Attributes:
    item: its name.
    stage: 'read', 'answer', 'listen', 'judge' or 'likelihood'.
    reason: what went wrong.
  """

  item: str
  stage: str
  reason: str


class Item(NamedTuple):
  """One record.

  Attributes:
    name: its key; where a task has several data sets, with the number of its own before.
    document: tokens, targets and spans.
    about: what the record says of itself.
    directory: of its data set.
  """

  name: str
  document: chat.Document
  about: Mapping[str, Any]
  directory: pathlib.Path

  @property
  def start(self) -> int:
    """Where the last answer begins.

    Raises:
      ValueError: the record has none.
    """
    targets = self.document.targets
    begins = np.flatnonzero(targets & ~np.append(False, targets[:-1]))
    if not len(begins):
      raise ValueError('the record has no answer')
    return int(begins[-1])

  @property
  def prompt(self) -> np.ndarray:
    """What the record gives the model, int32 [n]: all before its last answer."""
    return self.document.tokens[: self.start]

  @property
  def spans(self) -> np.ndarray:
    """int32 [spans, 2]: the audio of the last answer."""
    spans = self.document.spans
    return spans[spans[:, 0] >= self.start]

  def references(self, key: str) -> list[str]:
    """The texts under `key`, one of which would be right.

    Raises:
      ValueError: there is none.
    """
    value = self.about.get(key)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
      raise ValueError(f'the record has no text under {key!r}')
    return texts

  def seed(self, seed: int) -> int:
    """One of its own, that does not depend on what else is asked."""
    return zlib.crc32(f'{seed} {self.name}'.encode())


class Items(NamedTuple):
  """The items of a task.

  Attributes:
    chosen: those that are asked.
    broken: records that could not be read.
    fingerprint: JSON values that name the content of the data sets.
  """

  chosen: list[Item]
  broken: list[Failure]
  fingerprint: list[str]


def collect(task: suite.Task, sources: Sequence[records.Source]) -> Items:
  """Reads the records of a task.

  Raises:
    SuiteError: no record is as the task wants it, and none is broken.
  """
  found, broken = [], []
  for number, source in enumerate(sources):
    prefix = f'{number}/' if len(sources) > 1 else ''
    for index in range(len(source)):
      try:
        key, document, about = source[index]
      except Exception as error:  # whatever is wrong with the file
        broken.append(Failure(f'{prefix}#{index}', 'read', reason(error)))
        continue
      if _wanted(about, task.where):
        found.append(Item(prefix + key, document, about, source.directory))
  if not (found or broken or task.optional):
    where = ', '.join(f'{name}: {value}' for name, value in task.where.items())
    folders = ', '.join(str(source.directory) for source in sources)
    raise suite.SuiteError(
      f'task {task.name!r}: no record of {folders}, split {task.split!r}, is as `where` wants '
      f'it: {{{where}}}'
    )
  size = task.limit or len(found)
  return Items(spread(found, size), broken, [source.fingerprint for source in sources])


def spread(items: Sequence[Any], count: int) -> list[Any]:
  """Up to `count` of the items, evenly spaced: nobody chose them."""
  count = min(count, len(items))
  return [items[i * len(items) // count] for i in range(count)]


def reason(error: Exception) -> str:
  """What went wrong, on one line."""
  return f'{type(error).__name__}: {" ".join(str(error).split())}'[:500]


def _wanted(about: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
  return all(
    about.get(name) in (value if isinstance(value, list) else [value])
    for name, value in where.items()
  )
