"""Which files a path, a folder or a pattern names, and of what form each is."""

import glob
import os
import pathlib
import re
from collections.abc import Iterator

from absl import logging

from data_pipelines import records
from data_pipelines.reading.confined import inside

_SUFFIXES = {'.json': '', '.jsonl': 'jsonl', '.ndjson': 'jsonl', '.parquet': 'parquet'}
_FOREIGN = {
  b'\x1f\x8b': 'compressed by gzip',
  b'\x28\xb5\x2f\xfd': 'compressed by zstandard',
  b'PK\x03\x04': 'a zip archive',
  b'\xff\xfe': 'UTF-16',
  b'\xfe\xff': 'UTF-16',
}
_LIST = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[')


def find(path: str, root: str = '') -> Iterator[tuple[str, pathlib.Path]]:
  """The files that `path` names, sorted, each with its name: what tells it from the others.

  Args:
    path: a file, a folder (its files of records, at any depth), or a pattern (`*`, `**`,
      `?`, `[...]`).
    root: what `path` is relative to and may not leave; '' is no such folder.

  Raises:
    DataError: there is no such file, it is none that can be read, or lies outside `root`.
  """
  whole = os.path.join(root, path)
  if os.path.isdir(whole):
    top = _confined(whole, root)
    found = _below(whole)
  elif glob.has_magic(path) and not os.path.lexists(whole):
    top = _confined(_fixed(whole), root)
    if root and '..' in pathlib.PurePath(path).parts:
      raise records.DataError(f'{path!r}: a pattern may not have ".." in it')
    found = sorted(p for p in glob.iglob(whole, recursive=True) if not os.path.isdir(p))
  else:
    top, found = os.path.dirname(whole), [whole]
  if not found:
    known = ', '.join(_SUFFIXES)
    raise records.DataError(f'{whole}: no files of records here (they end in {known})')
  for each in found:
    real = inside(root, os.path.abspath(each)) if root else pathlib.Path(each)
    if not real.is_file():
      raise records.DataError(f'{each}: no such file of records; check the path')
    yield os.path.relpath(each, top or '.').replace(os.sep, '/'), real


def form(path: pathlib.Path) -> str:
  """'jsonl', 'json' (a list) or 'parquet'.

  Raises:
    DataError: it is none of these.
    OSError: the file cannot be read.
  """
  with path.open('rb') as file:
    head = file.read(4096)
  for magic, what in _FOREIGN.items():
    if head.startswith(magic):
      raise records.DataError(f'{path}: is {what}: unpack or convert it to JSON in UTF-8')
  if head.startswith(b'PAR1'):
    return 'parquet'
  return _SUFFIXES.get(path.suffix.lower()) or ('json' if _LIST.match(head) else 'jsonl')


def _confined(folder: str, root: str) -> str:
  """`folder`, which is not looked into if it lies outside `root`."""
  if root and os.path.lexists(folder):
    inside(root, os.path.abspath(folder))
  return folder


def _below(folder: str) -> list[str]:
  """Files of records at any depth; links to folders are not followed."""
  every = (
    os.path.join(at, name)
    for at, _, names in os.walk(folder, onerror=_raise)
    for name in names
    if not name.startswith('.')
  )
  kept, left = [], []
  for path in every:
    (kept if pathlib.Path(path).suffix.lower() in _SUFFIXES else left).append(path)
  if left:
    logging.warning('%s: %d other files are not read (%s)', folder, len(left), min(left))
  return sorted(kept)


def _fixed(pattern: str) -> str:
  """The folder of a pattern up to its first part with a wildcard."""
  parts = pathlib.Path(pattern).parts
  first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
  return str(pathlib.Path(*parts[:first])) if first else ''


def _raise(error: OSError) -> None:
  raise records.DataError(f'{error.filename}: cannot be read ({error})') from error
