"""The checkpoints in the folder of a run, by orbax.

    checkpoints/STEP/      params, optimizer and metadata, each an item of its own, and the
                           hashes of all their files
    damaged/               steps that are not as they were written

Whoever wants to use a model reads its parameters alone. Nothing is restored before its files
were held against their hashes: orbax sees hardly any damage.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from ttt_jax import errors, hashes, whole

DIRECTORY = 'checkpoints'
DAMAGED = 'damaged'


class CheckpointError(errors.UserError):
  """There is no checkpoint where one is needed, or it cannot be used."""


@contextlib.contextmanager
def opened(
  workdir: str | pathlib.Path, keep: int, every: int = 0, patience: float = 1200
) -> Iterator[ocp.CheckpointManager]:
  """The checkpoints under `workdir`, to write to; what is under way at the end is waited for.

  Args:
    workdir: folder of the run.
    keep: so many of the latest are kept.
    every: steps that are multiples of it are kept too; 0: none.
    patience: seconds that a save may take.

  Raises:
    CheckpointError: the folder cannot be made.
  """
  policies = ocp.checkpoint_managers
  kept = [policies.LatestN(keep)] + ([policies.EveryNSteps(every)] if every else [])
  options = ocp.CheckpointManagerOptions(
    preservation_policy=policies.AnyPreservationPolicy(kept),
    temporary_path_class=whole.Step,
    cleanup_tmp_directories=False,  # what it cannot delete would fail each of its saves
    async_options=ocp.AsyncOptions(timeout_secs=max(1, int(patience))),
  )
  where = pathlib.Path(workdir, DIRECTORY).absolute()
  try:
    sweep(workdir)
    checkpoints = ocp.CheckpointManager(where, options=options)
  except OSError as error:
    raise CheckpointError(f'cannot write to {workdir}: {error}') from error
  try:
    yield checkpoints
  except BaseException:
    try:
      checkpoints.close()
    except Exception as error:  # must not hide the first one
      logging.error('a save that was under way has failed, too: %s', error)
    raise
  checkpoints.close()


def save(
  checkpoints: ocp.CheckpointManager, step: int, params: Any, optimizer: Any, about: Any
) -> None:
  """Saves a state under `step`, without waiting for the disk.

  Args:
    checkpoints: as `opened` gives it.
    step: steps done.
    params: tree of arrays.
    optimizer: tree of arrays.
    about: JSON values that tell what the parameters are.

  Raises:
    CheckpointError: there is a later step already.
  """
  items = ocp.args.Composite(
    params=ocp.args.StandardSave(params),
    optimizer=ocp.args.StandardSave(optimizer),
    metadata=ocp.args.JsonSave(about),
  )
  if not checkpoints.save(step, args=items):
    raise CheckpointError(
      f'{checkpoints.directory}: step {step} is not saved, since step '
      f'{checkpoints.latest_step()} is there already: move it away'
    )


def restore(
  checkpoints: ocp.CheckpointManager, step: int, params: Any, optimizer: Any
) -> tuple[Any, Any]:
  """The parameters and the optimizer's state of a step that was found whole.

  Args:
    checkpoints: as `opened` gives it.
    step: as `resuming.newest_whole` gives it.
    params: tree of arrays of the shapes, dtypes and shardings that are wanted.
    optimizer: likewise.

  Raises:
    CheckpointError: what was saved has other shapes.
  """
  items = ocp.args.Composite(
    params=ocp.args.StandardRestore(_abstract(params)),
    optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
  )
  try:
    restored = checkpoints.restore(step, args=items)
  except (ValueError, KeyError) as error:
    raise CheckpointError(
      f'step {step} in {checkpoints.directory} does not fit the configured model and '
      f'optimizer: {error}'
    ) from error
  return restored.params, restored.optimizer


def steps(workdir: str | pathlib.Path) -> list[int]:
  """The steps that are saved, in their order, whether they are whole or damaged.

  Raises:
    CheckpointError: it cannot be told now.
  """
  where = pathlib.Path(workdir, DIRECTORY)
  try:
    names = os.listdir(where)
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as error:
    raise CheckpointError(f'{where} cannot be read: {error}') from error
  return sorted(int(name) for name in names if name.isdigit())


def latest(workdir: str | pathlib.Path) -> int:
  """The latest step that is saved.

  Raises:
    CheckpointError: there is none.
  """
  saved = steps(workdir)
  if not saved:
    raise _none(workdir)
  return saved[-1]


def folder(workdir: str | pathlib.Path, step: int) -> pathlib.Path:
  """Where a step is kept."""
  return pathlib.Path(workdir, DIRECTORY, str(step)).absolute()


def verified(workdir: str | pathlib.Path, below: str = '') -> int:
  """The latest step, whose files are as they were written.

  All processes call it: each reads a part of the files. Whoever reads a run that goes on takes
  the step from here, once: there may be a later one at any time.

  Args:
    workdir: folder of the run.
    below: the item that matters, such as `params`; by default all.

  Raises:
    CheckpointError: there is no checkpoint, or some of its files have changed.
  """
  # The first process decides: others may see a later step already.
  seen = np.array(max(steps(workdir), default=-1))
  step = int(multihost_utils.broadcast_one_to_all(seen))
  if step < 0:
    raise _none(workdir)
  found = damage(workdir, step, below)
  if found.lines and _has_gone(workdir, step):  # the run has saved others, and deleted this one
    return verified(workdir, below)
  if found.unreadable:
    raise _unread(workdir, step, '; '.join(found.lines[:3]))
  if found.lines:
    raise _damaged(workdir, step, found.lines)
  return step


def _has_gone(workdir: str | pathlib.Path, step: int) -> bool:
  """Whether it can be seen that there is no such step any more; the first process looks."""
  gone = False
  if jax.process_index() == 0:
    with contextlib.suppress(CheckpointError):
      gone = step not in steps(workdir)
  return bool(multihost_utils.broadcast_one_to_all(np.array(gone)))


def _none(workdir: str | pathlib.Path) -> CheckpointError:
  return CheckpointError(f'{pathlib.Path(workdir, DIRECTORY)}: no checkpoint here')


def _damaged(workdir: str | pathlib.Path, step: int, wrong: list[str]) -> CheckpointError:
  return CheckpointError(
    f'{folder(workdir, step)} is damaged: {"; ".join(wrong[:3])}. '
    f'`ttt-checkpoint verify --workdir={workdir}` tells which steps are whole; training '
    'goes on from the latest of them, and sets aside those behind it'
  )


def _unread(workdir: str | pathlib.Path, step: int, why: OSError | str) -> CheckpointError:
  return CheckpointError(f'{folder(workdir, step)} cannot be read: {why}')


class Damage(NamedTuple):
  """What is wrong with a step.

  Attributes:
    lines: as far as this process knows; empty in no process or in all.
    unreadable: whether a process has met a file that cannot be read (EIO): the disk is broken,
      or a network does not answer.
  """

  lines: list[str]
  unreadable: bool


def damage(workdir: str | pathlib.Path, step: int, below: str = '') -> Damage:
  """What is wrong with a step. All processes call it: each reads a part of the files.

  Raises:
    CheckpointError: in all processes, if a file cannot be read for another reason than EIO.
  """
  part, parts = jax.process_index(), jax.process_count()
  wrong, error = [], None
  try:
    wrong = hashes.damage(folder(workdir, step), below, part, parts)
  except OSError as met:
    wrong, error = [str(met)], met
  for line in wrong:
    logging.error('%s: %s', folder(workdir, step), line)
  broken = error is not None and error.errno == errno.EIO
  mine = np.array([len(wrong), broken, error is not None and not broken])
  total, unreadable, failed = multihost_utils.process_allgather(mine).reshape(-1, 3).sum(0)
  if failed:
    raise _unread(workdir, step, error or 'other processes tell why') from error
  wrong = wrong or [f'{total} files, by other processes'] * bool(total)
  return Damage(wrong, bool(unreadable))


def prune(workdir: str | pathlib.Path, keep: int, every: int = 0) -> list[int]:
  """Deletes steps, but for the latest `keep` and the multiples of `every`; which it deleted.

  It may be called beside a run that goes on: it asks JAX for no device, which that run may
  have for itself, and does not mind what the run deletes meanwhile.

  Raises:
    CheckpointError: the latest step, for which others would go, is damaged, or unreadable.
  """
  saved = steps(workdir)
  gone = [step for step in saved[:-keep] if not every or step % every]
  try:
    wrong = hashes.damage(folder(workdir, saved[-1])) if gone else []
  except OSError as error:
    raise _unread(workdir, saved[-1], error) from error
  if wrong:
    raise _damaged(workdir, saved[-1], wrong)
  for step in gone:
    # By another name first: what is half deleted must not look like a step.
    partial = folder(workdir, step).with_name(f'{step}{whole.TEMPORARY}')
    with contextlib.suppress(FileNotFoundError):  # then the run deletes the rest of it
      folder(workdir, step).rename(partial)
      shutil.rmtree(partial)
  return gone


def sweep(workdir: str | pathlib.Path) -> None:
  """Deletes what a save that failed has left; none may be under way in this process.

  What cannot be deleted is out of the way at least: the next save of its step has its name.
  """
  if jax.process_index() != 0:
    return
  for path in pathlib.Path(workdir, DIRECTORY).glob(f'*{whole.TEMPORARY}*'):
    step = path.name.split(whole.TEMPORARY)[0]
    left = path.with_name(f'{step}{whole.TEMPORARY}-{uuid.uuid4().hex}')
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # it is gone
      path.rename(left)


def _abstract(tree: Any) -> Any:
  def one(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  return jax.tree.map(one, tree)
