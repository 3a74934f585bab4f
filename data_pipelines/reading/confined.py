"""Paths that stay below a folder, whatever a file of data says."""

import os
import pathlib

from data_pipelines import records


def inside(root: str | pathlib.Path, path: str) -> pathlib.Path:
  """Where `path` leads, which must be a file or folder below `root`.

  Args:
    root: a folder.
    path: relative to it, or absolute.

  Returns:
    The real path, without links.

  Raises:
    DataError: there is nothing there, links run in a circle, or it lies outside `root`.
  """
  try:
    base = os.path.realpath(root, strict=True)
    real = os.path.realpath(os.path.join(base, path), strict=True)
  except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
    raise records.DataError(f'{path!r} cannot be found below {root} ({error})') from error
  if real != base and not real.startswith(os.path.join(base, '')):
    raise records.DataError(
      f'{path!r} lies outside {root}: data may only be read from below that folder; name '
      'another root, or move the file'
    )
  return pathlib.Path(real)
