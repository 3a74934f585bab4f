"""Hashes of the files of a folder, kept in it, and held against what lies there later."""

import errno
import hashlib
import os
import pathlib
import stat
from collections.abc import Collection
from concurrent import futures

from ttt_jax import json_file

FILE = 'hashes.json'
_KIND = 'sha256'
_THREADS = 4  # hashing lets other threads run
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EIO)  # no later look will find it


def write(folder: str | os.PathLike) -> None:
  """Hashes every file below `folder` and writes what was found into it, safe on the disk.

  Raises:
    OSError: a file cannot be read or is none (a link, say), or the hashes cannot be written.
  """
  folder = pathlib.Path(folder)
  sizes = _sizes(folder)
  if strange := [name for name, size in sizes.items() if size is None]:
    raise OSError(errno.EINVAL, 'neither a file nor a folder', str(folder / strange[0]))
  files = _hashes(folder, sorted(sizes))
  if None in files.values():
    raise OSError(errno.EIO, 'what was just written cannot be read', str(folder))
  json_file.write(folder / FILE, {'kind': _KIND, 'files': files})


def damage(
  folder: str | os.PathLike, below: str = '', part: int = 0, parts: int = 1
) -> list[str]:
  """What is wrong with `folder`, one line for each file; nothing if it is as it was written.

  Files whose name begins with a dot, such as network file systems leave, do not count. Links,
  pipes and the like never belong to it, and are not opened.

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
  except (FileNotFoundError, NotADirectoryError):
    return [f'{FILE} is missing: it was never finished, or is a part of a copy']
  except (OSError, ValueError, KeyError, TypeError) as error:
    if isinstance(error, OSError) and error.errno not in _GONE:
      raise
    return [f'{FILE} cannot be read: {error}']
  here = _sizes(folder, _GONE)
  names = sorted(name for name in known.keys() | here if not below or _lies(name, below))
  if not names:
    return [f'{below} is missing']
  names = names[part::parts]
  # Names are only ever compared with those that are there: what hashes.json says opens no file.
  wrong = {name: 'is missing' for name in names if name not in here}
  strange = [name for name in names if name not in known or here.get(name, 0) is None]
  wrong |= {name: 'does not belong to it' for name in strange}
  left = [name for name in names if name not in wrong]
  for name in left:
    if here[name] != known[name][0]:
      wrong[name] = f'has {here[name]} bytes, and had {known[name][0]}'
  found = _hashes(folder, [name for name in left if name not in wrong])
  wrong |= {name: 'has changed' for name, value in found.items() if value != known[name]}
  wrong |= {name: 'cannot be read' for name, value in found.items() if value is None}
  return [f'{name} {what}' for name, what in sorted(wrong.items())]


def _known(folder: pathlib.Path) -> dict[str, list]:
  """Size and hash of each file, as `write` found them."""
  if not stat.S_ISREG(os.lstat(folder / FILE).st_mode):
    raise ValueError('it is no file')
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


def _sizes(folder: pathlib.Path, missing: Collection[int] = ()) -> dict[str, int | None]:
  """Bytes of each file that counts, by its name relative to `folder`; None if it is no file.

  Args:
    folder: where to look.
    missing: codes of errors at which something is taken to be missing.

  Raises:
    OSError: a folder or a file cannot be looked at, for another reason.
  """

  def fail(error: OSError) -> None:
    if error.errno not in missing:
      raise error

  sizes = {}
  for where, folders, files in os.walk(folder, onerror=fail):
    for name in folders + files:
      path = pathlib.Path(where, name)
      relative = path.relative_to(folder).as_posix()
      if name.startswith('.') or relative == FILE:
        continue
      try:
        found = os.lstat(path)
      except OSError as error:
        fail(error)
        continue
      if not stat.S_ISDIR(found.st_mode):
        sizes[relative] = found.st_size if stat.S_ISREG(found.st_mode) else None
  return sizes


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
