"""Arrays in a file of numpy's (`.npz`) that may have been damaged."""

import pathlib

import numpy as np


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays in a file, by name; nothing is unpickled.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is no whole file of arrays.
  """
  try:
    with np.load(path, allow_pickle=False) as stored:
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
