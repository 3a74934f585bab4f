"""Hashes of the files of a folder, kept in it, and held against what lies there later."""

import errno
import hashlib
import os
import pathlib
from collections.abc import Iterator
from concurrent import futures

from ttt_jax import json_file

FILE = 'hashes.json'
_KIND = 'sha256'
_THREADS = 4  # hashing lets other threads run


def write(folder: str | os.PathLike) -> None:
  """Hashes every file below `folder` and writes what was found into it, safe on the disk.

  Raises:
    OSError: a file cannot be read, or the hashes cannot be written.
  """
  folder = pathlib.Path(folder)
  files = _hashes(folder, sorted(_files(folder)))
  if None in files.values():
    raise OSError(errno.EIO, 'what was just written cannot be read', str(folder))
  json_file.write(folder / FILE, {'kind': _KIND, 'files': files})


def damage(
  folder: str | os.PathLike, below: str = '', part: int = 0, parts: int = 1
) -> list[str]:
  """What is wrong with `folder`, one line for each file; nothing if it is as it was written.

  Files whose name begins with a dot, such as network file systems leave, do not count.

  Args:
    folder: to which `write` was applied.
    below: look only at what lies in this folder of it.
    part: which of the files are read here, if several share the work.
    parts: how many share it.

  Raises:
    OSError: a file cannot be read now, but maybe later: a network does not answer, say.
  """
  folder = pathlib.Path(folder)
  try:
    known = _known(folder)
  except FileNotFoundError:
    return [f'{FILE} is missing: it was never finished, or is a part of a copy']
  except (OSError, ValueError, KeyError, TypeError) as error:
    return [f'{FILE} cannot be read: {error}']
  here = set(_files(folder))
  names = sorted(name for name in known.keys() | here if not below or _lies(name, below))
  if not names:
    return [f'{below} is missing']
  names = names[part::parts]
  # Names are only ever compared with those that are there: what hashes.json says opens no file.
  wrong = {name: 'is missing' for name in names if name not in here}
  wrong |= {name: 'does not belong to it' for name in names if name not in known}
  left = [name for name in names if name not in wrong]
  sizes = {name: os.path.getsize(folder / name) for name in left}
  for name in left:
    if sizes[name] != known[name][0]:
      wrong[name] = f'has {sizes[name]} bytes, and had {known[name][0]}'
  found = _hashes(folder, [name for name in left if name not in wrong])
  wrong |= {name: 'has changed' for name, value in found.items() if value != known[name]}
  wrong |= {name: 'cannot be read' for name, value in found.items() if value is None}
  return [f'{name} {what}' for name, what in sorted(wrong.items())]


def _known(folder: pathlib.Path) -> dict[str, list]:
  """Size and hash of each file, as `write` found them."""
  content = json_file.read(folder / FILE)
  if content['kind'] != _KIND:
    raise ValueError(f'hashes of kind {content["kind"]!r}, not {_KIND!r}')
  files = content['files']
  if not isinstance(files, dict) or not files:
    raise ValueError('it names no files')
  if not all(
    len(value) == 2 and isinstance(value[0], int) and isinstance(value[1], str)
    for value in files.values()
  ):
    raise ValueError('it has no size and hash for each file')
  return files


def _files(folder: pathlib.Path) -> Iterator[str]:
  """Names of all files that count, relative to `folder`."""
  for where, _, names in os.walk(folder):
    for name in names:
      relative = pathlib.Path(where, name).relative_to(folder).as_posix()
      if not name.startswith('.') and relative != FILE:
        yield relative


def _lies(name: str, below: str) -> bool:
  return name.startswith(below + '/')


def _hashes(folder: pathlib.Path, names: list[str]) -> dict[str, list | None]:
  """Size and hash of each of these files, as JSON has them; None where the disk is broken."""

  def one(name: str) -> list | None:
    try:
      with (folder / name).open('rb') as file:
        digest = hashlib.file_digest(file, _KIND).hexdigest()
        return [file.tell(), digest]
    except OSError as error:
      if error.errno == errno.EIO:
        return None
      raise

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(names, pool.map(one, names)))
