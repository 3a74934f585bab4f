"""JSON lines: one object a line, and only a line feed ends one."""

import pathlib
from collections.abc import Iterator

from data_pipelines.reading.found import Cut, Found, broken, found

_BOM = b'\xef\xbb\xbf'
_BLOCK = 2**20


def cut(path: pathlib.Path, size: int) -> Iterator[Cut]:
  """Parts of `size` bytes or a line more; reads a file only if it has several."""
  total = path.stat().st_size
  if total <= size:
    yield Cut(0, total, 1, 1)
    return
  start, line, lines, at = 0, 1, 1, 0
  with path.open('rb') as file:
    while block := file.read(_BLOCK):
      counted = 0
      while start + size < at + len(block):
        feed = block.find(b'\n', max(0, start + size - at))
        if feed < 0:
          break
        lines += block.count(b'\n', counted, feed + 1)
        counted = feed + 1
        yield Cut(start, at + counted, line, line)
        start, line = at + counted, lines
      lines += block.count(b'\n', counted)
      at += len(block)
  if start < at:
    yield Cut(start, at, line, line)


def read(path: pathlib.Path, part: Cut, limit: int) -> Iterator[Found]:
  """The records of one part; empty lines are none, and longer ones than `limit` are not kept.

  Raises:
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    file.seek(part.start)
    at, line = part.start, part.line
    while at < part.end:
      raw = file.readline(limit + 1)
      size, long = len(raw), len(raw) > limit and not raw.endswith(b'\n')
      more = raw if long else b''
      while more and not more.endswith(b'\n'):
        more = file.readline(_BLOCK)
        size += len(more)
      if not raw:
        yield broken(line, line, 'the file has become shorter while it was read', b'')
        return
      at += size
      if line == 1:
        raw = raw.removeprefix(_BOM)
      if long:
        reason = f'the line is {size} bytes long; a record may have {limit}'
        yield broken(line, line, reason, raw)
      elif raw.strip():
        yield found(line, line, raw)
      line += 1
