"""Arrays in a file of numpy's (`.npz`) that may have been damaged."""

import pathlib

import numpy as np

from ttt_jax import plain_file


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays in a file, by name; nothing is unpickled.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no whole file of arrays, or what was packed in it is so much more than it
      that it was made for that: more than `plain_file.BYTES`.
  """
  try:
    most = max(plain_file.BYTES, plain_file.size(path))
    with np.load(path, allow_pickle=False) as stored:
      if (unpacked := sum(each.file_size for each in stored.zip.infolist())) > most:
        raise ValueError(f'{unpacked} bytes when unpacked; at most {most} are')
      found = dict(stored)
  except OSError:
    raise
  except Exception as error:  # numpy, zipfile and zlib raise errors of many kinds
    raise ValueError(f'no whole file of arrays: {error}') from error
  if not found:
    raise ValueError('no file of arrays: it is empty')
  for name, array in found.items():
    if not isinstance(array, np.ndarray):
      raise ValueError(f'no file of arrays: {name!r:.80} is none')
  return found
