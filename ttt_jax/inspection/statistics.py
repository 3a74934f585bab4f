"""The figures of records, which add up: those of two parts give those of the whole.

So a data set is gone through once, a batch of records at a time, in memory that grows by 24
bytes a record.
"""

import collections
import dataclasses
import hashlib
import heapq
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import chat
from ttt_jax.inspection import scripts, turns

UNNAMED = 'no task named'
SHOWN = 5  # of the longest, of the shortest, and of unsound records
_NAME = 80  # characters of a task's name that are kept


class Counts(NamedTuple):
  """How much there is; `audio` and `text` are all tokens of the class, marks included."""

  records: int = 0
  tokens: int = 0
  text: int = 0
  audio: int = 0
  targets: int = 0
  prompt_spans: int = 0
  response_spans: int = 0
  prompt_frames: int = 0
  response_frames: int = 0

  def plus(self, other: 'Counts') -> 'Counts':
    """Both together."""
    return Counts(*(a + b for a, b in zip(self, other)))


class Letters(NamedTuple):
  """Records in which a script is found, and its letters in them."""

  records: int
  letters: int


class Hashes(NamedTuple):
  """Of each sound record, [R]: enough to find copies.

  Attributes:
    numbers: int64, its number in the split.
    documents: uint64, of tokens and targets.
    texts: uint64, of the tokens that are text class; 0 where there is no audio.
  """

  numbers: np.ndarray
  documents: np.ndarray
  texts: np.ndarray


LENGTHS = ('records', 'prompt spans', 'response spans', 'text runs')


@dataclasses.dataclass(frozen=True)
class Statistics:
  """What is known of some records of a split.

  Attributes:
    tasks: counts by the task that records name.
    written: by script; system turns are left out, since they are instructions.
    lengths: for each of LENGTHS, how many have which length in tokens.
    codes: int64 [codebook], how often each code occurs.
    hashes: of the records.
    longest, shortest: up to `SHOWN` pairs of length and key.
    unsound: records that training would refuse; they count nowhere else.
    complaints: what is wrong with up to `SHOWN` of them: number in the split, key and reason.
  """

  tasks: dict[str, Counts]
  written: dict[str, Letters]
  lengths: dict[str, collections.Counter[int]]
  codes: np.ndarray
  hashes: Hashes
  longest: tuple[tuple[int, str], ...]
  shortest: tuple[tuple[int, str], ...]
  unsound: int
  complaints: tuple[tuple[int, str, str], ...]

  def __add__(self, other: 'Statistics') -> 'Statistics':
    return Statistics(
      tasks=_merged(self.tasks, other.tasks, Counts.plus),
      written=_merged(self.written, other.written, _plus),
      lengths={name: self.lengths[name] + other.lengths[name] for name in LENGTHS},
      codes=self.codes + other.codes,
      hashes=Hashes(*map(np.concatenate, zip(self.hashes, other.hashes))),
      longest=_longest(self.longest + other.longest),
      shortest=_shortest(self.shortest + other.shortest),
      unsound=self.unsound + other.unsound,
      complaints=tuple(sorted(self.complaints + other.complaints)[:SHOWN]),
    )

  @property
  def total(self) -> Counts:
    """Counts of all tasks together."""
    out = Counts()
    for counts in self.tasks.values():
      out = out.plus(counts)
    return out


def of(numbered: Iterable[tuple[int, records.Record]], assets: assets_lib.Assets) -> Statistics:
  """The figures of some records.

  Args:
    numbered: records, each with its number in the split.
    assets: what their ids mean.
  """
  vocabulary, reader = assets.vocabulary, turns.Reader(assets.template)
  tasks, written = {}, collections.defaultdict(list)
  lengths = {name: collections.Counter() for name in LENGTHS}
  codes, hashes, sizes, complaints, unsound = [], [], [], [], 0
  for number, record in numbered:
    try:
      records.check_record(record, vocabulary)
    except records.DataError as error:
      unsound += 1
      complaints = sorted([*complaints, (number, record.key, str(error))])[:SHOWN]
      continue
    document = record.document
    task, counts = task_of(record), _counts(document, vocabulary)
    tasks[task] = tasks.get(task, Counts()).plus(counts)
    for script, letters in scripts.letters(_said(document, reader, assets.tokenizer)).items():
      written[script].append(letters)
    _add_lengths(lengths, document)
    codes.append(vocabulary.to_codes(document.tokens))
    hashes.append((number, *_hashed(document, vocabulary)))
    sizes.append((len(document.tokens), record.key))
  numbers, documents, texts = zip(*hashes) if hashes else ((), (), ())
  return Statistics(
    tasks=tasks,
    written={name: Letters(len(found), sum(found)) for name, found in written.items()},
    lengths=lengths,
    codes=np.bincount(
      np.concatenate([np.zeros(0, np.int32), *codes]), minlength=vocabulary.codebook_size
    ),
    hashes=Hashes(
      np.array(numbers, np.int64), np.array(documents, np.uint64), np.array(texts, np.uint64)
    ),
    longest=_longest(sizes),
    shortest=_shortest(sizes),
    unsound=unsound,
    complaints=tuple(complaints),
  )


def task_of(record: records.Record) -> str:
  """The task that a record names."""
  task = record.about.get('task') if isinstance(record.about, dict) else None
  return task[:_NAME] if isinstance(task, str) and task else UNNAMED


def _counts(document: chat.Document, vocabulary) -> Counts:
  tokens, targets, spans = document
  responses = document.responses
  audio = vocabulary.is_audio(tokens)
  # Every code of a span: from it, what is audio but no code (ends) is left out.
  code = (tokens >= vocabulary.codebook_start) & (
    tokens < vocabulary.codebook_start + vocabulary.codebook_size
  )
  frames = [int(code[start:end].sum()) for start, end in spans.tolist()]
  answered = sum(n for n, response in zip(frames, responses.tolist()) if response)
  return Counts(
    records=1,
    tokens=len(tokens),
    text=len(tokens) - int(audio.sum()),
    audio=int(audio.sum()),
    targets=int(targets.sum()),
    prompt_spans=len(spans) - int(responses.sum()),
    response_spans=int(responses.sum()),
    prompt_frames=sum(frames) - answered,
    response_frames=answered,
  )


def _said(document: chat.Document, reader: turns.Reader, tokenizer) -> str:
  """The text of a document without that of its system turns."""
  tokens, ids = document.tokens.tolist(), []
  for piece in reader.pieces(document.tokens, document.spans):
    if not piece.audio and piece.role != 'system':
      ids += tokens[piece.start : piece.end]
  return tokenizer.decode(ids) if ids else ''


def _add_lengths(lengths: dict[str, collections.Counter], document: chat.Document) -> None:
  lengths['records'][len(document.tokens)] += 1
  at = 0
  for (start, end), response in zip(document.spans.tolist(), document.responses.tolist()):
    lengths['response spans' if response else 'prompt spans'][end - start] += 1
    lengths['text runs'].update([start - at] if start > at else [])
    at = end
  lengths['text runs'].update([len(document.tokens) - at] if len(document.tokens) > at else [])


def _hashed(document: chat.Document, vocabulary) -> tuple[int, int]:
  tokens, targets, spans = document
  whole = _hash(tokens.tobytes() + targets.tobytes())
  return whole, _hash(tokens[~vocabulary.is_audio(tokens)].tobytes()) if len(spans) else 0


def _hash(content: bytes) -> int:
  return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), 'little')


def _merged(mine: dict, others: dict, plus) -> dict:
  return mine | {
    name: plus(mine[name], value) if name in mine else value for name, value in others.items()
  }


def _plus(mine: Letters, others: Letters) -> Letters:
  return Letters(mine.records + others.records, mine.letters + others.letters)


def _longest(sizes: Iterable[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
  return tuple(heapq.nsmallest(SHOWN, sizes, key=lambda size: (-size[0], size[1])))


def _shortest(sizes: Iterable[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
  return tuple(heapq.nsmallest(SHOWN, sizes))
