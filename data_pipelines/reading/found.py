"""What the readers of all forms of files take and yield, and how a record of JSON is read."""

import json
from typing import Any, NamedTuple

from ttt_jax import json_file

LIMIT = 64 * 2**20  # bytes of the longest record that is read
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
  value = json_file.parse(raw, _DECODER)
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


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
