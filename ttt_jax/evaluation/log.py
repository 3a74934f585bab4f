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
    whole = self._whole() if self._path.exists() else b''
    self._known: dict[str, Any] = {}
    for number, line in enumerate(whole.split(b'\n')[1:-1], 2):
      try:
        name, result = json_file.parse(line)
        self._known[str(name)] = result
      except (ValueError, TypeError) as error:
        logging.warning('%s:%d is damaged (%s): it is made again', self._path, number, error)
    if not whole and writes:
      folder.mkdir(parents=True, exist_ok=True)
      json_lines.append(self._path, about)

  def _whole(self) -> bytes:
    """The whole lines; one that was cut off is cut from the file."""
    content = self._path.read_bytes()
    whole = content[: content.rfind(b'\n') + 1]
    if self._writes and len(whole) < len(content):
      with self._path.open('r+b') as file:
        file.truncate(len(whole))
    return whole

  def __contains__(self, name: str) -> bool:
    return name in self._known

  def __getitem__(self, name: str) -> Any:
    return self._known[name]

  def __setitem__(self, name: str, result: Any) -> None:
    """Keeps a result, JSON values."""
    self._known[name] = result
    if self._writes:
      json_lines.append(self._path, [name, result])
