"""Where records are read from, and the pieces in which that is done.

    sources --pieces--> pieces --read--> items

Pieces depend on the files alone, never on how many processes read them.
"""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from data_pipelines import records
from data_pipelines.items import Item, Place, Rejected
from data_pipelines.reading import files, json_lines, json_list, parquet
from data_pipelines.reading.found import EXCERPT, LIMIT, Cut, Found
from ttt_jax import errors

TASKS = {
  'transcribe': 'speech recognition (ASR)',
  'speak': 'speech synthesis (TTS)',
  'chat': 'spoken conversation',
  'answer': 'spoken question answering',
  'caption': 'description of sound',
  'classify': 'emotion or scene of a sound',
  'text_chat': 'written conversation',
  'pretrain': 'interleaved text and audio, all of which is learnt',
}

_FORMS = {'jsonl': json_lines, 'json': json_list, 'parquet': parquet}
# Which keys a record of each type of the authors' data config has one of.
_TYPES = {'IT': ('messages', 'conversations', 'response', 'turns'), 'PT': ('text', 'parts')}


class Source(NamedTuple):
  """Files of records that are treated alike.

  Attributes:
    path: a file, a folder (all files of records below it), or a pattern with `*`, `?`, `[`.
    ratio: how many times each record is taken: the whole part of it for certain, the
      fraction for that share of the records, always the same ones.
    data_type: 'IT', the records are conversations; 'PT', they are texts; '', either.
    task: one of `TASKS`, or '' if it is not known.
    root: the folder that `path` is relative to and may not leave; '' is no such folder.
  """

  path: str
  ratio: float = 1.0
  data_type: str = ''
  task: str = ''
  root: str = ''


class Piece(NamedTuple):
  """A part of a file that is read by itself; plain values, so that it can be sent around.

  Attributes:
    path: of the file.
    name: of the file in keys: without what all files of its source have in common.
    form: 'jsonl', 'json' (a list) or 'parquet'.
    start, end: bytes of the file, or groups of rows of a table.
    line: of the first record.
    number: of the first record in the file; of JSON lines, the line.
    source: number of the source.
    ratio, data_type: of the source.
    about: what every record carries.
  """

  path: str
  name: str
  form: str
  start: int
  end: int
  line: int
  number: int
  source: int
  ratio: float
  data_type: str
  about: dict[str, Any]


def check_task(task: Any) -> str:
  """`task` if it is one of `TASKS` or ''; raises DataError if not."""
  if task == '' or (isinstance(task, str) and task in TASKS):
    return task
  near = errors.nearest(task, list(TASKS)) if isinstance(task, str) else ''
  raise records.DataError(f'no such task: {task!r:.80}{near}; there are {", ".join(TASKS)}')


def pieces(sources: Iterable[Source], piece_bytes: int) -> list[Piece]:
  """Everything that there is to read, in order.

  Args:
    sources: where.
    piece_bytes: how large a piece may be before it ends with its record. Larger files than
      that are read once, to know where lines begin.

  Raises:
    DataError: a file or folder is missing, cannot be read, or is of no known form.
  """
  out = []
  for number, source in enumerate(sources):
    task = {'task': source.task} if source.task else {}
    for name, path in files.find(source.path, source.root):
      about = {**task, 'source': name}
      try:
        form = files.form(path)
        for part in _FORMS[form].cut(path, piece_bytes):
          place = (str(path), name, form, *part, number)
          out.append(Piece(*place, source.ratio, source.data_type, about))
      except OSError as error:
        raise records.DataError(f'{path}: cannot be read ({error})') from error
  return out


def read(piece: Piece, limit: int = LIMIT) -> Iterator[Item | Rejected]:
  """What stands in a piece, record by record.

  Args:
    piece: of a file that is still what it was when the piece was made.
    limit: bytes of the longest record; longer ones are rejected, and never in memory.

  Raises:
    DataError: the file cannot be read any more.
  """
  part = Cut(piece.start, piece.end, piece.line, piece.number)
  try:
    for found in _FORMS[piece.form].read(pathlib.Path(piece.path), part, limit):
      yield from _items(piece, found)
  except OSError as error:
    raise records.DataError(f'{piece.path}: cannot be read ({error})') from error


def _items(piece: Piece, found: Found) -> Iterator[Item | Rejected]:
  """As many copies of a record as its source asks for; what cannot be read comes once."""
  place = Place(piece.path, found.line)
  reason = found.reason or _other_type(found.content, piece.data_type)
  if reason:
    yield Rejected(place, reason, found.excerpt or repr(found.content)[:EXCERPT])
    return
  name = f'{piece.name}:{found.number}'
  for copy in range(int(piece.ratio) + (_uniform(name) < piece.ratio % 1)):
    key = f'{piece.source}/{name}' + (f'#{copy}' if copy else '')
    yield Item(key, place, found.content, piece.about)


def _other_type(content: dict[str, Any], data_type: str) -> str:
  """Why a record is not of the type that its source says; '' if it is."""
  if not data_type or any(key in content for key in _TYPES[data_type]):
    return ''
  keys = ', '.join(_TYPES[data_type])
  return f'its source has data_type {data_type}, but it has none of {keys}'


def _uniform(name: str) -> float:
  """In [0, 1), the same for the same name."""
  return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48
