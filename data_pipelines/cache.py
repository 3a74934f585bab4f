"""Arrays that take a while to compute, kept on disk under a hash of what they depend on."""

import hashlib
import json
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import logging

from ttt_jax import arrays as arrays_lib

Arrays = dict[str, np.ndarray]


def cached(
  directory: str | pathlib.Path,
  name: str,
  depends: list[Any],
  make: Callable[[], Arrays],
  fits: Callable[[Arrays], bool],
) -> Arrays:
  """The arrays that `make` returns, from `directory` where they were kept before.

  Args:
    directory: where to keep them; if it cannot be written, they are made each time.
    name: what they are, for people.
    depends: JSON values; other values are another entry.
    make: computes them.
    fits: whether arrays are such as `make` computes; others are damaged.
  """
  key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
  path = pathlib.Path(directory, f'{name}-{key}.npz')
  try:
    if path.exists():
      if fits(found := arrays_lib.read(path)):
        return found
      raise ValueError('has other arrays')
  except (OSError, ValueError) as error:
    logging.warning('%s is damaged (%s): making it again', path, error)
  arrays = make()
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that processes that share the folder see all or nothing.
    partial = path.with_name(f'{path.stem}.{uuid.uuid4().hex}.partial.npz')
    try:
      np.savez(partial, **arrays)
      partial.replace(path)
    finally:
      partial.unlink(missing_ok=True)
  except OSError as error:
    logging.warning(
      'cannot keep %s: %s; without it each start makes it anew: name another folder by '
      '--config.data.cache',
      *(path, error),
    )
  return arrays
