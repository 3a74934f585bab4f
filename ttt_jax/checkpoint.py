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
_CHUNK_BYTES = 2**26  # of what is saved for others to read in parts


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
  sweep(workdir)
  try:
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
  if wrong := damage(workdir, step, below).lines:
    raise _damaged(workdir, step, wrong)
  return step


def _none(workdir: str | pathlib.Path) -> CheckpointError:
  return CheckpointError(f'{pathlib.Path(workdir, DIRECTORY)}: no checkpoint here')


def _damaged(workdir: str | pathlib.Path, step: int, wrong: list[str]) -> CheckpointError:
  return CheckpointError(
    f'{folder(workdir, step)} is damaged: {"; ".join(wrong[:3])}. '
    f'`ttt-checkpoint verify --workdir={workdir}` tells which steps are whole; training '
    'goes on from the latest of them, and sets aside those behind it'
  )


def _unread(workdir: str | pathlib.Path, step: int, error: OSError) -> CheckpointError:
  return CheckpointError(f'{folder(workdir, step)} cannot be read: {error}')


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
    CheckpointError: a file cannot be read, for another reason than EIO.
  """
  part, parts, unreadable = jax.process_index(), jax.process_count(), False
  try:
    wrong = hashes.damage(folder(workdir, step), below, part, parts)
  except OSError as error:
    if error.errno != errno.EIO:
      raise _unread(workdir, step, error) from error
    wrong, unreadable = [f'cannot be read: {error}'], True
  for line in wrong:
    logging.error('%s: %s', folder(workdir, step), line)
  found = multihost_utils.process_allgather(np.array([len(wrong), unreadable]))
  total, unreadable = found.reshape(-1, 2).sum(axis=0)
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
  """Deletes what a save that failed has left; none may be under way in this process."""
  if jax.process_index() != 0:
    return
  for path in pathlib.Path(workdir, DIRECTORY).glob(f'*{whole.TEMPORARY}*'):
    shutil.rmtree(path, ignore_errors=True)


def save_params(workdir: str | pathlib.Path, params: Any, about: Any) -> None:
  """Saves parameters alone, as step 0 of a run that somebody else trained.

  Args:
    workdir: folder of the run.
    params: tree of numpy arrays, of which no copy is made.
    about: JSON values that tell what the parameters are.
  """
  path = folder(workdir, 0)
  handlers = ocp.type_handlers
  registry = handlers.create_type_handler_registry(
    (jax.Array, handlers.ArrayHandler()),
    (np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False)),
  )
  # In chunks, so that a device of a mesh can read its part alone; and in files that are not
  # large, because what goes into one is held in memory until it is written.
  arguments = ocp.args.PyTreeSave(
    params,
    save_args=jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params),
    ocdbt_target_data_file_size=2 * _CHUNK_BYTES,
  )
  handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
  with ocp.Checkpointer(handler) as writer:
    writer.save(path / 'params', args=arguments)
  with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
    writer.save(path / 'metadata', args=ocp.args.JsonSave(about))
  hashes.write(path)


def restore_params(
  workdir: str | pathlib.Path, like: Any = None, step: int | None = None
) -> Any:
  """The parameters of a step.

  Args:
    workdir: folder of the run.
    like: tree of the shapes that are wanted, by default those that are there. Where it has
      shardings too, it has dtypes, and each device reads its part alone; where not, arrays
      are of the dtypes that are there, on the first local device.
    step: as `verified` gives it, which is asked by default.

  Raises:
    CheckpointError: there is no checkpoint, it is damaged or was made by a stranger, or it has
      other parameters than `like`.
  """
  step = verified(workdir, 'params') if step is None else step
  path = _params(workdir, step)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def wanted(leaf, saved) -> jax.ShapeDtypeStruct:
    if getattr(leaf, 'sharding', None):
      return leaf
    return jax.ShapeDtypeStruct(saved.shape, saved.dtype, sharding=device)

  with _told(path), ocp.StandardCheckpointer() as reader:
    saved = reader.metadata(path).item_metadata.tree
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
    like = shapes if like is None else like
    _refuse_other_shapes(path, saved, like)
    return reader.restore(path, jax.tree.map(wanted, like, saved))


def read_param(workdir: str | pathlib.Path, step: int, keys: tuple[str, ...]) -> np.ndarray:
  """One parameter of a step, as `verified` gives it, by the keys that lead to it.

  Raises:
    CheckpointError: it has no such parameter.
  """
  path = _params(workdir, step)
  item, arguments = 0, ocp.RestoreArgs(restore_type=np.ndarray)
  for key in reversed(keys):
    item, arguments = {key: item}, {key: arguments}
  wanted = ocp.args.PyTreeRestore(item, restore_args=arguments, partial_restore=True)
  with _told(path), ocp.PyTreeCheckpointer() as reader:
    value = reader.restore(path, args=wanted)
  for key in keys:
    value = value[key]
  if not isinstance(value, np.ndarray):  # what was asked for and is not there stays as it was
    raise CheckpointError(f'{path}: no parameter {"/".join(keys)}')
  return value


def shapes(workdir: str | pathlib.Path, step: int) -> Any:
  """Tree of the shapes and dtypes of a step's parameters.

  Raises:
    CheckpointError: it was made by a stranger.
  """
  path = _params(workdir, step)
  with _told(path), ocp.StandardCheckpointer() as reader:
    return reader.metadata(path).item_metadata.tree


@contextlib.contextmanager
def _told(path: pathlib.Path) -> Iterator[None]:
  """Says in words what orbax meets in parameters that are as a stranger wrote them."""
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:  # of many kinds
    raise CheckpointError(
      f'{path}: these parameters cannot be read ({error!r:.300})'
    ) from error


def _params(workdir: str | pathlib.Path, step: int) -> pathlib.Path:
  return folder(workdir, step) / 'params'


def _refuse_other_shapes(path: pathlib.Path, saved: Any, wanted: Any) -> None:
  def flat(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(k, simple=True, separator='/'): v.shape for k, v in leaves}

  has, wants = flat(saved), flat(wanted)
  wrong = [
    f'{name}: {has.get(name, "missing")}, wanted {wants.get(name, "nothing")}'
    for name in sorted(has | wants)
    if has.get(name) != wants.get(name)
  ]
  if wrong:
    raise CheckpointError(f'{path} does not fit the configured model:\n  ' + '\n  '.join(wrong))


def _abstract(tree: Any) -> Any:
  def one(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  return jax.tree.map(one, tree)
