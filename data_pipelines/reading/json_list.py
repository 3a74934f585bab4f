"""A JSON list of objects, read one by one: never the whole file at once.

Only brackets, commas and quotes are looked at to find where a record ends; the record itself
is then parsed alone. So a record that is no JSON is rejected and reading goes on. Where the
brackets themselves do not match, nobody can tell where the next record begins, unless
records begin lines of their own, as `json.dump(..., indent=1)` writes them: then reading goes
on with the next line that begins as the first record did. If there is none, all of the rest
is rejected as one.
"""

import io
import pathlib
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from data_pipelines.reading.found import Cut, Found, broken, found
from ttt_jax.json_file import DEPTH

_BLOCK = 2**20
_HEAD = 4096  # bytes
_OUTSIDE = re.compile(rb'"[^"\\\n]*"|[\[\]{}",]')  # a whole text without escapes counts as one
_INSIDE = re.compile(rb'["\\\n]')  # of a text, which no line feed may stand in
_CLOSES = {b'[': ord(']'), b'{': ord('}')}
# The list, and the line of its own on which the first record begins.
_FIRST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\n([ \t]*\{)')
_UNMATCHED = 'its brackets do not match, or nest too deeply'
_CUT_OFF = 'the file ends before its list does: it was cut off'


class Element(NamedTuple):
  """What stands between two commas of the list.

  Attributes:
    line: where it begins.
    end: the offset at which the next one begins, or the list ends.
    next_line: the line of that offset.
    raw: its bytes; no more than its beginning if it is longer than the limit.
    size: its bytes in all.
    fault: what is wrong with its brackets; '' if nothing is.
    goes_on: whether an element follows it.
  """

  line: int
  end: int
  next_line: int
  raw: bytes
  size: int
  fault: str
  goes_on: bool


def cut(path: pathlib.Path, size: int) -> Iterator[Cut]:
  """Parts of `size` bytes or a record more; reads a file only if it has several."""
  total = path.stat().st_size
  start, line, number = 0, 1, 1
  if total > size:
    with path.open('rb') as file:
      for count, element in enumerate(_Scanner(file, Cut(0, total, 1, 1), 0).elements(), 1):
        if element.goes_on and start + size <= element.end:
          yield Cut(start, element.end, line, number)
          start, line, number = element.end, element.next_line, count + 1
  if start < total:
    yield Cut(start, total, line, number)


def read(path: pathlib.Path, part: Cut, limit: int) -> Iterator[Found]:
  """The records of one part; longer ones than `limit` are not kept.

  Raises:
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    number = part.number
    for element in _Scanner(file, part, limit).elements():
      if element.fault:
        yield broken(number, element.line, element.fault, element.raw)
      elif element.size > limit:
        reason = f'the record is {element.size} bytes long; it may have {limit}'
        yield broken(number, element.line, reason, element.raw)
      else:
        yield found(number, element.line, element.raw)
      number += 1


class _Scanner:
  """Finds the elements of one part of a list."""

  def __init__(self, file: BinaryIO, part: Cut, limit: int):
    """`part` begins with the file, or where an element does."""
    self._file, self._unread, self._line = file, part.end - part.start, part.line
    first = _FIRST.match(file.read(_HEAD))
    self._margin = b'\n' + first[1] if first else None  # what stands before every record
    self._last = part.end == file.seek(0, io.SEEK_END)
    file.seek(part.start)
    self._block, self._at, self._base = b'', 0, part.start  # _base: where the block begins
    self._limit = limit
    self._fresh = part.start == 0  # whether no element was met yet

  def elements(self) -> Iterator[Element]:
    """All of them, in order."""
    if self._fresh:
      self._load()
      self._drop(self._block.index(b'[') + 1)
    while True:
      self._begin()
      stop, fault = self._element()
      if not stop and (fault or self._size or self._last or self._unread):
        at_end = not fault and self._last
        self._find_margin()
        at_end = at_end and self._at == len(self._block)
        fault = _CUT_OFF if at_end else fault or _UNMATCHED
      elif not self._size and (stop == b',' or (stop and not self._fresh)):
        fault = 'a comma has no record on one side'
      goes_on = stop == b',' or (not stop and self._at < len(self._block))
      if self._size or fault:
        yield self._made(fault, goes_on)
      self._fresh = False
      if stop == b']':
        yield from self._behind()
      if not goes_on:
        return

  def _element(self) -> tuple[bytes, str]:
    """Goes to the end of an element: what ends it, if anything, and what is wrong with it."""
    open_, inside, at = bytearray(), False, self._at
    while True:
      met = (_INSIDE if inside else _OUTSIDE).search(self._block, at)
      if met is None or (met[0] == b'\\' and met.end() == len(self._block)):
        self._take(len(self._block))
        if not self._load():
          return b'', ''
        at = 0 if met is None else 1
        continue
      mark, at = met[0], met.end()
      if len(mark) > 1:  # a whole text
        continue
      if mark == b'"':
        inside = not inside
      elif mark == b'\\':
        at += 1
      elif mark == b',':
        if not open_:
          break
      elif mark in _CLOSES:
        open_.append(_CLOSES[mark])
        if len(open_) > DEPTH:
          self._take(at)
          return b'', _UNMATCHED
      elif mark == b'\n':
        self._take(at)
        return b'', 'a text does not end on its line'
      elif not open_ and mark == b']':
        break
      elif not open_ or open_.pop() != mark[0]:
        self._take(at)
        return b'', _UNMATCHED
    self._take(met.start())
    self._drop(at)
    return mark, ''

  def _behind(self) -> Iterator[Element]:
    """What follows the end of the list, which should be nothing."""
    self._begin()
    self._take(len(self._block))
    while self._load():
      self._take(len(self._block))
    if self._size:
      yield self._made('something follows the end of the list', False)

  def _find_margin(self) -> None:
    """Goes to the first line in or behind a faulty element that begins as a record does."""
    if self._size:
      self._unread += self._base + len(self._block) - self._origin
      self._base, self._block, self._line = self._file.seek(self._origin), b'', self._first
      self._begin()
      self._load()
      self._take(1)
    tail = b''
    while True:
      seen = tail + self._block[self._at :]
      found_at = seen.find(self._margin) if self._margin else -1
      if found_at >= 0:
        self._take(self._at + max(0, found_at + 1 - len(tail)))
        return
      self._take(len(self._block))
      tail = seen[-len(self._margin or b'.') :]
      if not self._load():
        return

  def _load(self) -> bool:
    """The next block; False if there is none."""
    self._base, self._at = self._base + len(self._block), 0
    self._block = self._file.read(min(_BLOCK, self._unread))
    self._unread -= len(self._block)
    return bool(self._block)

  def _begin(self) -> None:
    self._kept, self._size, self._first = [], 0, self._line

  def _take(self, end: int) -> None:
    """Adds the block up to `end` to the element; space before it is none of it."""
    part = self._block[self._at : end]
    if not self._size:
      bare = part.lstrip()
      self._first = self._line + part.count(b'\n', 0, len(part) - len(bare))
      self._origin = self._base + end - len(bare)
    else:
      bare = part
    if bare and (self._size <= max(self._limit, _HEAD)):
      self._kept.append(bare)
    self._size += len(bare)
    self._drop(end)

  def _drop(self, end: int) -> None:
    self._line += self._block.count(b'\n', self._at, end)
    self._at = end

  def _made(self, fault: str, goes_on: bool) -> Element:
    raw = b''.join(self._kept)
    raw = raw if self._size <= self._limit else raw[:_HEAD]
    end = self._base + self._at
    return Element(self._first, end, self._line, raw, self._size, fault, goes_on)
