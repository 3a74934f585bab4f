"""What the readers of all forms of files take and yield, and how a record of JSON is read."""

import json
from typing import Any, NamedTuple

LIMIT = 64 * 2**20  # bytes of the longest record that is read
DEPTH = 100  # of lists and objects in one another
EXCERPT = 200  # characters of what is rejected that are kept for people


class Cut(NamedTuple):
  """A part of a file that can be read by itself.

  Attributes:
    start, end: bytes, or of a table the groups of rows.
    line: of its first record.
    number: of its first record.
  """

  start: int
  end: int
  line: int
  number: int


class Found(NamedTuple):
  """A record in a file, or what stands in its place.

  Attributes:
    number: of the record in the file, counted from 1; of JSON lines, the line.
    line: where it begins; in a table, the row.
    content: its object; None if it cannot be read.
    reason: why not; '' if it can.
    excerpt: the beginning of what cannot.
  """

  number: int
  line: int
  content: dict[str, Any] | None
  reason: str = ''
  excerpt: str = ''


def found(number: int, line: int, raw: bytes) -> Found:
  """The JSON object `raw`, or why it is none."""
  try:
    return Found(number, line, parse(raw))
  except ValueError as error:
    return broken(number, line, str(error), raw)


def broken(number: int, line: int, reason: str, raw: bytes) -> Found:
  """A rejection of what begins with `raw`."""
  excerpt = raw[: 4 * EXCERPT].decode('utf-8', 'replace')[:EXCERPT]
  return Found(number, line, None, reason, excerpt)


def parse(raw: bytes) -> dict[str, Any]:
  """The JSON object that `raw` is, by the letter of the standard.

  Raises:
    ValueError: it is none: no UTF-8, no JSON, NaN or Infinity, a key that stands twice, half
      a surrogate pair, nested too deeply, or a value of another type.
  """
  try:
    value = _DECODER.decode(raw.decode('utf-8'))
    if b'\\u' in raw:  # only an escape can name half a pair, which no text may hold
      json.dumps(value, ensure_ascii=False).encode('utf-8')
  except json.JSONDecodeError as error:
    raise ValueError(f'not JSON: {error.msg} (character {error.pos + 1})') from error
  except UnicodeDecodeError as error:
    raise ValueError(f'not UTF-8: byte {error.start + 1} is {raw[error.start]:#04x}') from error
  except UnicodeEncodeError as error:
    raise ValueError('has half of a surrogate pair, which is no character') from error
  except RecursionError as error:
    raise ValueError('is nested too deeply') from error
  if not _is_shallow(value, raw):
    raise ValueError('is nested too deeply')
  if not isinstance(value, dict):
    raise ValueError(f'a record must be an object, not {type(value).__name__}')
  return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  made = dict(pairs)
  if len(made) != len(pairs):
    names = [name for name, _ in pairs]
    twice = next(name for name in names if names.count(name) > 1)
    raise ValueError(f'the key {twice!r:.80} stands twice in an object')
  return made


def _constant(name: str):
  raise ValueError(f'{name} is no number of JSON')


def _is_shallow(value: Any, raw: bytes) -> bool:
  """Whether recursion over a value is safe: its lists and objects nest at most `DEPTH` deep."""
  if raw.count(b'[') + raw.count(b'{') <= DEPTH:
    return True
  level = [value]
  for _ in range(DEPTH):
    inner = (v.values() if isinstance(v, dict) else v for v in level)
    level = [each for values in inner for each in values if isinstance(each, dict | list)]
    if not level:
      return True
  return False


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
