"""Figures in TensorBoard's files."""

import pathlib
import time

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2


class Board:
  """Writes a file of events, in the caller's thread.

  A thread of tensorboardX's own would die of a full disk, and nobody would hear of it.
  """

  def __init__(self, folder: pathlib.Path):
    """Opens a file of its own in `folder`; OSError where there is no room."""
    self._file = event_file_writer.EventsWriter(str(folder / 'events'))

  def write(self, step: int, figures: dict[str, float]) -> None:
    """Writes figures of a step; OSError where there is no room, and all is over then."""
    scalars = [summary.scalar(name, value).value[0] for name, value in figures.items()]
    about = event_pb2.Event(wall_time=time.time(), step=step)
    about.summary.value.extend(scalars)
    self._file.write_event(about)
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
