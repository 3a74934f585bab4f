"""Hashes of the files of a folder, kept in it, and held against what lies there later."""

import errno
import hashlib
import os
import pathlib
import re
import stat
import time
from concurrent import futures

from ttt_jax import json_file

FILE = 'hashes.json'
_KIND = 'sha256'
_THREADS = 4  # hashing lets other threads run
PATIENCE = 30.0  # seconds in which storage that cannot be read may come to itself
# What file systems, desktops and `write` leave beside what was written, and no reader opens.
_LITTER = re.compile(r'\.nfs.*|\.fuse_hidden.*|\.DS_Store|\._.*|\.hashes\.json\..*partial')


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
  json_file.write(folder / FILE, {'kind': _KIND, 'files': files})


def damage(
  folder: str | os.PathLike, below: str = '', part: int = 0, parts: int = 1
) -> list[str]:
  """What is wrong with `folder`, one line for each file; nothing if it is as it was written.

  What cannot be read is looked at again for `PATIENCE` seconds: a network that does not answer
  may give the same error (EIO) as a broken disk. Links, pipes and the like never belong to the
  folder, and are not opened.

  Args:
    folder: to which `write` was applied.
    below: look only at what lies in this folder of it.
    part: which of the files are read here, if several share the work.
    parts: how many share it.

  Raises:
    OSError: a file cannot be read, which says nothing of what was written to it.
  """
  end = None
  while True:
    try:
      return _damage(pathlib.Path(folder), below, part, parts)
    except OSError as error:
      end = end or time.monotonic() + PATIENCE  # a look itself may take longer
      if isinstance(error, PermissionError) or time.monotonic() >= end:
        raise
    time.sleep(PATIENCE / 10)


def _damage(folder: pathlib.Path, below: str, part: int, parts: int) -> list[str]:
  """As `damage`, by one look."""
  try:
    known = _known(folder)
  except (FileNotFoundError, NotADirectoryError):
    return [f'{FILE} is missing: it was never finished, or is a part of a copy']
  except (ValueError, KeyError, TypeError) as error:
    return [f'{FILE} cannot be understood: {error}']
  here = _sizes(folder)
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


def _sizes(folder: pathlib.Path) -> dict[str, int | None]:
  """Bytes of each file that counts, by its name relative to `folder`; None if it is no file.

  Raises:
    OSError: a folder or a file cannot be looked at.
  """

  def fail(error: OSError) -> None:
    raise error

  sizes = {}
  for where, folders, files in os.walk(folder, onerror=fail):
    for name in folders + files:
      path = pathlib.Path(where, name)
      relative = path.relative_to(folder).as_posix()
      if _LITTER.fullmatch(name) or relative == FILE:
        continue
      found = os.lstat(path)
      if not stat.S_ISDIR(found.st_mode):
        sizes[relative] = found.st_size if stat.S_ISREG(found.st_mode) else None
  return sizes


def _lies(name: str, below: str) -> bool:
  return name.startswith(below + '/')


def _hashes(folder: pathlib.Path, names: list[str]) -> dict[str, list]:
  """Size and hash of each of these files, as JSON has them.

  Raises:
    OSError: names one that cannot be read.
  """

  def one(name: str) -> list:
    try:
      with (folder / name).open('rb') as file:
        digest = hashlib.file_digest(file, _KIND).hexdigest()
        return [file.tell(), digest]
    except OSError as error:  # that of reading names none
      raise OSError(error.errno, error.strerror, str(folder / name)) from error

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(names, pool.map(one, names)))
