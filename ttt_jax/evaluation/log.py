"""What is known of items already: lines of JSON that outlive a process that is killed."""

import hashlib
import json
import pathlib
from typing import Any

from absl import logging

from ttt_jax import json_file, json_lines


class Log:
  """Results by the names of items, each kept as soon as it is there.

  The name of the file holds a hash of all that the results depend on, so that those of
  another checkpoint, other settings or other data are never taken for these.
  """

  def __init__(self, folder: pathlib.Path, stem: str, about: dict[str, Any], writes: bool):
    """Reads what there is.

    Args:
      folder: of the file; it is made.
      stem: how the file's name begins.
      about: JSON values, all that results depend on beside the item; the file's first line.
      writes: whether this process writes; where several work, one does.
    """
    text = json.dumps(about, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    self._path, self._writes = folder / f'{stem}-{name}.jsonl', writes
    self._known: dict[str, Any] = {}
    begun = self._path.exists() and self._read(self._path.read_bytes())
    if not begun and writes:
      folder.mkdir(parents=True, exist_ok=True)
      json_lines.append(self._path, about)

  def _read(self, content: bytes) -> bool:
    """Takes what the whole lines say; whether there is one.

    The file stays as it is, for another process may be adding lines: one that was cut off ends
    where the next one begins.
    """
    lines = content.split(b'\n')[:-1]
    for number, line in enumerate(lines, 1):
      try:
        found = json_file.parse(line)
      except ValueError as error:
        logging.warning('%s:%d is damaged (%s): it is made again', self._path, number, error)
        continue
      if isinstance(found, list) and len(found) == 2:
        self._known[str(found[0])] = found[1]
      elif not isinstance(found, dict):  # what the results depend on
        logging.warning('%s:%d is no result: it is made again', self._path, number)
    return bool(lines)

  def __contains__(self, name: str) -> bool:
    return name in self._known

  def __getitem__(self, name: str) -> Any:
    return self._known[name]

  def __setitem__(self, name: str, result: Any) -> None:
    """Keeps a result, JSON values."""
    self._known[name] = result
    if self._writes:
      json_lines.append(self._path, [name, result])
