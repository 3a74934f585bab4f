"""The parameters of a step alone: who uses a model reads them, who converts one writes them."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ttt_jax import checkpoint, errors, hashes

_CHUNK_BYTES = 2**26  # of what is saved for others to read in parts


def save(workdir: str | pathlib.Path, params: Any, about: Any) -> None:
  """Saves parameters alone, as step 0 of a run that somebody else trained.

  Args:
    workdir: folder of the run.
    params: tree of numpy arrays, of which no copy is made.
    about: JSON values that tell what the parameters are.
  """
  path = checkpoint.folder(workdir, 0)
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


def restore(workdir: str | pathlib.Path, like: Any = None, step: int | None = None) -> Any:
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
  step = checkpoint.verified(workdir, 'params') if step is None else step
  path = _params(workdir, step)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

  def wanted(leaf, saved) -> jax.ShapeDtypeStruct:
    if getattr(leaf, 'sharding', None):
      return leaf
    return jax.ShapeDtypeStruct(saved.shape, saved.dtype, sharding=device)

  with _told(path), ocp.StandardCheckpointer() as reader:
    saved = reader.metadata(path).item_metadata.tree
    there = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)
    like = there if like is None else like
    _refuse_other_shapes(path, saved, like)
    return reader.restore(path, jax.tree.map(wanted, like, saved))


def read(workdir: str | pathlib.Path, step: int, keys: tuple[str, ...]) -> np.ndarray:
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
    raise checkpoint.CheckpointError(f'{path}: no parameter {"/".join(keys)}')
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
    raise checkpoint.CheckpointError(
      f'{path}: these parameters cannot be read ({error!r:.300})'
    ) from error


def _params(workdir: str | pathlib.Path, step: int) -> pathlib.Path:
  return checkpoint.folder(workdir, step) / 'params'


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
    raise checkpoint.CheckpointError(
      f'{path} does not fit the configured model:\n  ' + '\n  '.join(wrong)
    )
