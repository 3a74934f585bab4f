"""Files of others that are read whole: what could have no end is not begun."""

import os
import pathlib
import stat

BYTES = 2**28  # of a file


def read(path: str | pathlib.Path) -> bytes:
  """All of a file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is larger than `BYTES`, or a pipe or a device, which may have no end.
  """
  if (bytes_of := size(path)) > BYTES:
    raise ValueError(f'has {bytes_of} bytes; at most {BYTES} are read')
  return pathlib.Path(path).read_bytes()


def size(path: str | pathlib.Path) -> int:
  """Bytes of a file.

  Raises:
    OSError: it cannot be looked at.
    ValueError: it is a pipe or a device.
  """
  found = os.stat(path)
  if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
    raise ValueError('no plain file')
  return found.st_size
