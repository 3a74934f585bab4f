"""The folder of a run: its settings, its assets, and its checkpoints, by orbax.

    config.json            settings, and the vocabulary's fingerprint
    assets/                vocabulary, tokenizer, codec, prompts
    checkpoints/STEP/      params, optimizer and metadata, each an item of its own

Whoever wants to use a model needs this folder alone, and reads its parameters alone.
"""

import contextlib
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import errors

CONFIG = 'config.json'
DIRECTORY = 'checkpoints'
_CHUNK_BYTES = 2**26  # of what is saved for others to read in parts


class CheckpointError(errors.UserError):
  """There is no checkpoint where one is needed, or it cannot be used."""


def manager(workdir: str | pathlib.Path, keep: int) -> ocp.CheckpointManager:
  """The checkpoints under `workdir`, to write to; the latest `keep` are kept.

  Raises:
    CheckpointError: the folder cannot be made.
  """
  options = ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.LatestN(keep),
    cleanup_tmp_directories=True,
  )
  where = pathlib.Path(workdir, DIRECTORY).absolute()
  try:
    return ocp.CheckpointManager(where, options=options)
  except OSError as error:
    raise CheckpointError(f'cannot write to {workdir}: {error}') from error


def save(
  checkpoints: ocp.CheckpointManager, step: int, params: Any, optimizer: Any, about: Any
) -> None:
  """Saves a state under `step`, without waiting for the disk.

  Args:
    checkpoints: as `manager` gives it.
    step: steps done.
    params: tree of arrays.
    optimizer: tree of arrays.
    about: JSON values that tell what the parameters are.
  """
  items = ocp.args.Composite(
    params=ocp.args.StandardSave(params),
    optimizer=ocp.args.StandardSave(optimizer),
    metadata=ocp.args.JsonSave(about),
  )
  checkpoints.save(step, args=items)


def restore(checkpoints: ocp.CheckpointManager, params: Any, optimizer: Any) -> tuple:
  """The latest step, its parameters and its optimizer's state.

  Args:
    checkpoints: as `manager` gives it; there must be a step.
    params: tree of arrays of the shapes, dtypes and shardings that are wanted.
    optimizer: likewise.

  Raises:
    CheckpointError: what was saved has other shapes.
  """
  step = checkpoints.latest_step()
  items = ocp.args.Composite(
    params=ocp.args.StandardRestore(_abstract(params)),
    optimizer=ocp.args.StandardRestore(_abstract(optimizer)),
  )
  try:
    restored = checkpoints.restore(step, args=items)
  except (ValueError, KeyError) as error:
    raise CheckpointError(
      f'step {step} in {checkpoints.directory} does not fit the configured model: {error}'
    ) from error
  return step, restored.params, restored.optimizer


def latest(workdir: str | pathlib.Path) -> int:
  """The latest step that is saved whole.

  Raises:
    CheckpointError: there is none.
  """
  where = pathlib.Path(workdir, DIRECTORY)
  # orbax writes elsewhere and renames: a folder whose name is a number is a whole step.
  steps = [int(path.name) for path in where.glob('*') if path.name.isdigit()]
  if not steps:
    raise CheckpointError(f'{where}: no checkpoint here')
  return max(steps)


def save_params(workdir: str | pathlib.Path, params: Any, about: Any) -> None:
  """Saves parameters alone, as step 0 of a run that somebody else trained.

  Args:
    workdir: folder of the run.
    params: tree of numpy arrays, of which no copy is made.
    about: JSON values that tell what the parameters are.
  """
  path = pathlib.Path(workdir, DIRECTORY, '0').absolute()
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


def restore_params(workdir: str | pathlib.Path, like: Any = None) -> Any:
  """The parameters of the latest step.

  Args:
    workdir: folder of the run.
    like: tree of shapes, dtypes and shardings that are wanted; each device reads its part
      alone. By default they are as saved, on the first local device.

  Raises:
    CheckpointError: there is no checkpoint, or it has other parameters than `like`.
  """
  path = _params(workdir)
  with ocp.StandardCheckpointer() as reader:
    saved = reader.metadata(path).item_metadata.tree
    if like is None:
      device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
      like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), saved
      )
    _refuse_other_shapes(path, saved, like)
    return reader.restore(path, like)


def read_param(workdir: str | pathlib.Path, keys: tuple[str, ...]) -> np.ndarray:
  """One parameter of the latest step, by the keys that lead to it, and no other.

  Raises:
    CheckpointError: there is no checkpoint, or it has no such parameter.
  """
  path = _params(workdir)
  item, arguments = 0, ocp.RestoreArgs(restore_type=np.ndarray)
  for key in reversed(keys):
    item, arguments = {key: item}, {key: arguments}
  wanted = ocp.args.PyTreeRestore(item, restore_args=arguments, partial_restore=True)
  with ocp.PyTreeCheckpointer() as reader:
    value = reader.restore(path, args=wanted)
  for key in keys:
    value = value[key]
  if not isinstance(value, np.ndarray):  # what was asked for and is not there stays as it was
    raise CheckpointError(f'{path}: no parameter {"/".join(keys)}')
  return value


def shapes(workdir: str | pathlib.Path) -> Any:
  """Tree of the shapes and dtypes of the latest step's parameters."""
  with ocp.StandardCheckpointer() as reader:
    return reader.metadata(_params(workdir)).item_metadata.tree


def _params(workdir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(workdir, DIRECTORY, str(latest(workdir)), 'params').absolute()


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


def describe(config: config_lib.Config, vocabulary: str) -> dict[str, Any]:
  """What a run says of itself: all settings, and its vocabulary's fingerprint."""
  return {'config': config.to_dict(), 'vocabulary': vocabulary}


def refuse_another(workdir: str | pathlib.Path, described: dict) -> None:
  """Refuses a folder that holds another run: other batches, or another network.

  What may change from one start of a run to the next is how long it trains, how it is
  computed and laid on devices, how it decodes, the rates of its optimizer, and the weights
  of its data sets in the steps to come.

  Raises:
    CheckpointError: names the first setting that differs.
  """
  if '://' in str(workdir):
    raise CheckpointError(f'{workdir}: not a folder; mount the storage and name the folder')
  if not pathlib.Path(workdir, CONFIG).exists():
    return
  old = _read(workdir)
  free = ['data.directory', 'data.threads', 'data.workers']
  free += [f'model.{key}' for key in config_lib.HOW_COMPUTED]
  fixed = ('vocabulary', 'seed', 'data', 'mask', 'objective', 'model', 'train.freeze')
  for name, was, now in _differences(old, described):
    if name == 'data.changes' and _until(workdir, was) == _until(workdir, now):
      continue
    if (name in fixed or name.split('.')[0] in fixed) and name not in free:
      raise CheckpointError(
        f'{workdir} holds a run with another {name} ({was}; now {now}): use another folder'
      )


def _until(workdir: str | pathlib.Path, changes: list) -> list:
  """Of changes that begin with a step, those of steps that the run in `workdir` has done."""
  try:
    done = latest(workdir)
  except CheckpointError:
    return []
  return [change for change in changes if change[0] < done]


def refuse_unshared(workdir: str | pathlib.Path, patience: float = 60) -> None:
  """Refuses a folder that is another one on the machine of another process.

  Each process would keep its part of a checkpoint to itself, and no checkpoint could be read.

  Args:
    workdir: folder of the run, which is made.
    patience: seconds until what one process writes must be seen by all; file systems of
      networks take their time.

  Raises:
    CheckpointError: in all processes, if some do not see what the first one writes.
  """
  if jax.process_count() == 1:
    return
  token = multihost_utils.broadcast_one_to_all(np.random.default_rng().integers(2**31))
  mark = pathlib.Path(workdir, f'.shared-{token}')
  if jax.process_index() == 0:
    with contextlib.suppress(OSError):  # then none will see it
      mark.parent.mkdir(parents=True, exist_ok=True)
      mark.touch()
  end = time.monotonic() + patience
  while not (found := mark.exists()) and time.monotonic() < end:
    time.sleep(0.1)
  blind = np.flatnonzero(~multihost_utils.process_allgather(np.array(found)))
  if found and jax.process_index() == 0:
    mark.unlink()
  if blind.size:
    raise CheckpointError(
      f'{workdir} is not one folder for all processes: what process 0 writes to it, '
      f'processes {blind.tolist()} do not see; mount one storage on every machine'
    )


def _differences(old: dict, new: dict):
  """Settings that differ, by dotted name: name, old value, new value."""
  if old['vocabulary'] != new['vocabulary']:
    yield 'vocabulary', old['vocabulary'], new['vocabulary']
  # JSON knows no tuples: both sides are compared as JSON has them.
  was, now = old['config'], json.loads(json.dumps(new['config']))
  for part in now:
    if not isinstance(now[part], dict):
      if was.get(part) != now[part]:
        yield part, was.get(part), now[part]
      continue
    for name, value in now[part].items():
      if was.get(part, {}).get(name) != value:
        yield f'{part}.{name}', was.get(part, {}).get(name), value


def claim(workdir: str | pathlib.Path, described: dict, assets: assets_lib.Assets) -> None:
  """Writes what `workdir` holds: the description of the run, and its assets.

  Raises:
    CheckpointError: it cannot be written.
  """
  if jax.process_index() != 0:
    return
  path = pathlib.Path(workdir, CONFIG)
  try:
    assets.save(path.parent / assets_lib.DIRECTORY)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(described, indent=1) + '\n', encoding='utf-8')
    partial.replace(path)
  except OSError as error:
    raise CheckpointError(f'cannot write to {workdir}: {error}') from error


def _read(workdir: str | pathlib.Path) -> dict:
  """The description of the run in `workdir`."""
  path = pathlib.Path(workdir, CONFIG)
  try:
    described = json.loads(path.read_text(encoding='utf-8'))
    return {'config': described['config'], 'vocabulary': described['vocabulary']}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise CheckpointError(f'{path}: no run is described here ({error})') from error


def load_config(workdir: str | pathlib.Path) -> config_lib.Config:
  """Settings of the run in `workdir`.

  Raises:
    CheckpointError: there is no run.
  """
  try:
    return config_lib.from_config_dict(_read(workdir)['config'])
  except config_lib.ConfigError as error:
    raise CheckpointError(f'{pathlib.Path(workdir, CONFIG)}: {error}') from error


def _abstract(tree: Any) -> Any:
  def one(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  return jax.tree.map(one, tree)
