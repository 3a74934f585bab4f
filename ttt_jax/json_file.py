"""JSON that may have been damaged, or written by a stranger: a value, or a ValueError."""

import json
import os
import pathlib
import uuid
from typing import Any

from ttt_jax import plain_file

DEPTH = 100  # of lists and objects in one another
_PLAIN = json.JSONDecoder()


def read(path: str | pathlib.Path) -> Any:
  """The value in a file; `parse` says what else is raised.

  Raises:
    OSError, ValueError: the file cannot be read, as `plain_file.read` says.
  """
  return parse(plain_file.read(path))


def write(path: str | pathlib.Path, value: Any) -> None:
  """Puts a value into a file that is whole at any time, and safe on the disk when this returns.

  Raises:
    OSError: it cannot be written, and is what it was.
  """
  path = pathlib.Path(path)
  partial = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.partial')  # others may write too
  try:
    with partial.open('w', encoding='utf-8') as file:
      file.write(json.dumps(value, indent=1) + '\n')
      file.flush()
      # Else the new name may outlast a loss of power, and its content not.
      os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def parse(raw: bytes, decoder: json.JSONDecoder = _PLAIN) -> Any:
  """The value that `raw` is; recursion over it is safe, and its texts can be written.

  Args:
    raw: JSON in UTF-8.
    decoder: may refuse more than the standard one does, by ValueErrors.

  Raises:
    ValueError: it is no JSON, no UTF-8, has half a surrogate pair, or nests too deeply.
  """
  try:
    value = decoder.decode(raw.decode('utf-8'))
    if b'\\u' in raw:  # only an escape can name half a pair, which no text may hold
      json.dumps(value, ensure_ascii=False).encode('utf-8')
  except json.JSONDecodeError as error:
    raise ValueError(f'not JSON: {error.msg} (character {error.pos + 1})') from error
  except UnicodeDecodeError as error:
    raise ValueError(f'not UTF-8: byte {error.start + 1} is {raw[error.start]:#04x}') from error
  except UnicodeEncodeError as error:
    raise ValueError('has half of a surrogate pair, which is no character') from error
  except RecursionError as error:
    raise ValueError('is nested too deeply') from error
  if not _is_shallow(value, raw):
    raise ValueError('is nested too deeply')
  return value


def _is_shallow(value: Any, raw: bytes) -> bool:
  """Whether lists and objects nest at most `DEPTH` deep."""
  if raw.count(b'[') + raw.count(b'{') <= DEPTH:
    return True
  level = [value]
  for _ in range(DEPTH):
    inner = (v.values() if isinstance(v, dict) else v for v in level)
    level = [each for values in inner for each in values if isinstance(each, dict | list)]
    if not level:
      return True
  return False
