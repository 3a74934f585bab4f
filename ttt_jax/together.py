"""What all processes of a run find out together.

A process that raises alone leaves the others waiting for it, until they are ended without a
reason; and each supervisor must see whether another start can help.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from ttt_jax import errors

_MOST = 2**12  # bytes of a message


class ElsewhereError(errors.UserError):
  """Another process found that something cannot be used; `exit_code` is as there."""


def checked(check: Callable[[], Any]) -> Any:
  """What `check` returns; all processes call it.

  Raises:
    UserError: `check` raised it here, or, if not, in another process, whose reason it has.
  """
  try:
    found, wrong = check(), None
  except errors.UserError as error:
    found, wrong = None, error
  elsewhere = _first_wrong(wrong) if jax.process_count() > 1 else None
  if wrong or elsewhere:
    raise wrong or elsewhere
  return found


def _first_wrong(wrong: errors.UserError | None) -> ElsewhereError | None:
  said = str(wrong or '').encode()[:_MOST]
  about = np.array([wrong.exit_code if wrong else 0, len(said)])
  codes, sizes = multihost_utils.process_allgather(about).T
  if not codes.any():
    return None
  padded = np.frombuffer(said.ljust(sizes.max()), np.uint8)
  texts = multihost_utils.process_allgather(padded)
  number = int(np.flatnonzero(codes)[0])
  reason = texts[number].tobytes().decode(errors='replace').rstrip()
  error = ElsewhereError(f'process {number}: {reason}')
  error.exit_code = int(codes[number])
  return error


def of_first(value: Any) -> Any:
  """The JSON value that the first process gives; all processes call it."""
  said = np.frombuffer(json.dumps(value).encode(), np.uint8)
  if jax.process_count() == 1:
    return json.loads(said.tobytes())
  size = int(multihost_utils.broadcast_one_to_all(np.array(len(said))))
  padded = np.zeros(size, np.uint8)
  padded[: len(said)] = said[:size]
  return json.loads(multihost_utils.broadcast_one_to_all(padded).tobytes())
