"""The folder of a run: its settings, its assets, and its checkpoints, by orbax.

    config.json            settings, and the vocabulary's fingerprint
    assets/                vocabulary, tokenizer, codec, prompts
    checkpoints/STEP/      params, optimizer and metadata, each an item of its own

Whoever wants to use a model needs this folder alone, and reads its parameters alone.
"""

import json
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import errors

CONFIG = 'config.json'
DIRECTORY = 'checkpoints'


class CheckpointError(errors.UserError):
  """There is no checkpoint where one is needed, or it cannot be used."""


def manager(workdir: str | pathlib.Path, keep: int) -> ocp.CheckpointManager:
  """The checkpoints under `workdir`, to write to; the latest `keep` are kept."""
  options = ocp.CheckpointManagerOptions(
    preservation_policy=ocp.checkpoint_managers.LatestN(keep),
    cleanup_tmp_directories=True,
  )
  return ocp.CheckpointManager(pathlib.Path(workdir, DIRECTORY).absolute(), options=options)


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


def restore_params(workdir: str | pathlib.Path) -> Any:
  """The parameters of the latest step, on the first local device.

  Raises:
    CheckpointError: there is no checkpoint.
  """
  path = pathlib.Path(workdir, DIRECTORY, str(latest(workdir)), 'params').absolute()
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with ocp.StandardCheckpointer() as reader:
    saved = reader.metadata(path).item_metadata.tree

    def one(leaf):
      return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)

    return reader.restore(path, jax.tree.map(one, saved))


def describe(config: config_lib.Config, vocabulary: str) -> dict[str, Any]:
  """What a run says of itself: all settings, and its vocabulary's fingerprint."""
  return {'config': config.to_dict(), 'vocabulary': vocabulary}


def claim(workdir: str | pathlib.Path, described: dict, assets: assets_lib.Assets) -> None:
  """Makes `workdir` the folder of a run, or finds that it already is.

  Raises:
    CheckpointError: it holds a run of another model or vocabulary, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / CONFIG
  if path.exists():
    old = json.loads(path.read_text(encoding='utf-8'))
    for name, was, now in (
      ('model', old['config']['model'], described['config']['model']),
      ('vocabulary', old['vocabulary'], described['vocabulary']),
    ):
      if was != now:
        raise CheckpointError(
          f'{workdir} holds a run with another {name} ({was}; now {now}): use another folder'
        )
  if jax.process_index() == 0:
    try:
      assets.save(workdir / assets_lib.DIRECTORY)
      partial = path.with_suffix('.partial')
      partial.write_text(json.dumps(described, indent=1) + '\n', encoding='utf-8')
      partial.replace(path)
    except OSError as error:
      raise CheckpointError(f'cannot write to {workdir}: {error}') from error


def load_config(workdir: str | pathlib.Path) -> config_lib.Config:
  """Settings of the run in `workdir`.

  Raises:
    CheckpointError: there is no run.
  """
  path = pathlib.Path(workdir, CONFIG)
  try:
    described = json.loads(path.read_text(encoding='utf-8'))
    return config_lib.from_config_dict(described['config'])
  except (OSError, KeyError, json.JSONDecodeError) as error:
    raise CheckpointError(f'{path}: no run is described here ({error})') from error


def _abstract(tree: Any) -> Any:
  def one(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  return jax.tree.map(one, tree)
