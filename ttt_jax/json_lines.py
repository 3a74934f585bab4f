"""Files of JSON, a value a line, that outlive a process that is killed, and a full disk."""

import errno
import json
import os
import pathlib
from typing import Any


def append(path: str | pathlib.Path, value: Any) -> None:
  """Adds a line, whole or not at all; one that was cut off before does not spoil it.

  Raises:
    OSError: there is no room for it, or the file cannot be written.
  """
  line = json.dumps(value).encode() + b'\n'
  with pathlib.Path(path).open('a+b', buffering=0) as file:
    end = file.seek(0, os.SEEK_END)
    if end:
      file.seek(end - 1)
      if file.read(1) != b'\n':
        line = b'\n' + line
    if file.write(line) < len(line):  # there was room for a part
      file.truncate(end)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
