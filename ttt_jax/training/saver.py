"""Saves beside the steps, and lets a run go on where there is no room to save."""

import errno
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from ttt_jax import checkpoint

_FULL = ('No space left on device', 'Disk quota exceeded', 'File too large')
_CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAILURES = 3  # in a row, for whatever other reason: then there is more wrong than a save


class Saver:
  """Writes checkpoints in the background. A full disk pauses it, with an alarm.

  What cannot be saved is left out, and the next time it is tried again. So it is with other
  errors, a few times in a row, since what threads of orbax say of a full disk is not always
  that it is full. If one of several processes fails, the others wait for it in vain, and the
  run ends; so room for a whole checkpoint is asked for before.
  """

  def __init__(
    self, checkpoints: ocp.CheckpointManager, workdir: str | pathlib.Path, about: Any
  ):
    """Saves nothing yet.

    Args:
      checkpoints: as `checkpoint.opened` gives it.
      workdir: folder of the run.
      about: JSON values that tell what the parameters are.
    """
    self._checkpoints, self._workdir, self._about = checkpoints, workdir, about
    self._under_way: int | None = None
    self._missed: list[int] = []
    self._failures = 0  # in a row

  def save(self, step: int, params: Any, optimizer: Any) -> None:
    """Begins to save a state; waits for the one before, and until this one was copied.

    Args:
      step: steps done.
      params: tree of arrays.
      optimizer: tree of arrays.
    """
    self._settle()
    if not self._room(sum(leaf.nbytes for leaf in jax.tree.leaves((params, optimizer)))):
      self._alarm(step, f'{self._workdir} has no room for it')
      return
    self._under_way = step
    try:
      checkpoint.save(self._checkpoints, step, params, optimizer, self._about)
    except Exception as error:
      self._failed(error)

  def finish(self) -> None:
    """Waits until what was begun is saved.

    Raises:
      CheckpointError: the latest state that was to be saved is not.
    """
    self._settle()
    if self._missed:
      raise checkpoint.CheckpointError(
        f'{self._workdir}: steps {self._missed} could not be saved, see the ALARM above. Make '
        'room, and start again'
      )

  def _settle(self) -> None:
    try:
      self._checkpoints.wait_until_finished()
    except Exception as error:
      self._failed(error)
    if self._under_way is not None:
      self._under_way, self._missed, self._failures = None, [], 0
    # Each time, and not only behind what failed: when one thread fails, others still write.
    try:
      checkpoint.sweep(self._workdir)
    except OSError as error:
      logging.error('what failed saves have left cannot be looked for: %s', error)

  def _failed(self, error: Exception) -> None:
    """Goes on without the step, if that may be; else raises the error again."""
    step, self._under_way = self._under_way, None
    if step is not None and checkpoint.folder(self._workdir, step).exists():
      # It has its name, so it is whole: what failed is to delete those that it succeeds.
      logging.error('step %d is saved, but older ones could not be deleted: %s', step, error)
      self._missed, self._failures = [], 0
      self._checkpoints.reload()  # it has forgotten the step, and would never delete it
      return
    self._failures += not is_full(error)
    if jax.process_count() > 1 or self._failures >= _FAILURES:
      raise error
    self._checkpoints.reload()
    self._alarm(step, (str(error) or repr(error)).splitlines()[0])

  def _room(self, size: int) -> bool:
    """Whether there is room for so many bytes; the first process looks."""
    try:
      enough = shutil.disk_usage(self._workdir).free > 1.05 * size
    except OSError as error:
      logging.error('the room in %s cannot be told: %s', self._workdir, error)
      enough = False
    return bool(multihost_utils.broadcast_one_to_all(np.array(enough)))

  def _alarm(self, step: int, why: str) -> None:
    self._missed.append(step)
    logging.error(
      'ALARM: step %d is not saved: %s. Training goes on, and tries again at the next '
      'checkpoint; make room',
      *(step, why),
    )


def is_full(error: BaseException | None) -> bool:
  """Whether an error, or what led to it, says that there is no room."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in _CODES:
      return True
    if any(text in str(error) for text in _FULL):
      return True
    error = error.__cause__ or error.__context__
  return False
