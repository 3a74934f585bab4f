"""What the folder of a run says of itself: its settings, what they stand for, its assets.

    config.json            settings, fingerprints of the vocabulary and the data sets, and the
                           versions of what packed rows and of libraries
    assets/                vocabulary, tokenizer, codec, prompts

With checkpoints beside them, that is all that is needed to use a model.
"""

import contextlib
import importlib.metadata
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax

from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, json_file
from ttt_jax import config as config_lib

FILE = 'config.json'

# Those on which it depends what is trained; numpy draws the order of records.
_LIBRARIES = ('jax', 'jaxlib', 'libtpu', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def of(
  config: config_lib.Config, vocabulary: str, records: Sequence[str] = (), packing: int = 0
) -> dict[str, Any]:
  """What a run says of itself.

  Args:
    config: all settings.
    vocabulary: its fingerprint.
    records: fingerprints of the data sets; none where nothing is trained.
    packing: version of the algorithm that makes rows of them; 0 where nothing is trained.
  """
  return {
    'config': config.to_dict(),
    'vocabulary': vocabulary,
    'records': list(records),
    'packing': packing,
    'libraries': _versions(),
  }


def _versions() -> dict[str, str]:
  """Of the libraries that are installed."""
  versions = {}
  for name in _LIBRARIES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[name] = importlib.metadata.version(name)
  return versions


def write(workdir: str | pathlib.Path, described: dict, assets: assets_lib.Assets) -> None:
  """Writes what `workdir` holds: the description of the run, and its assets.

  Each file is whole at any time, the old one or the new one: others may read them, and a run
  that goes on may be killed.

  Raises:
    CheckpointError: it cannot be written.
  """
  if jax.process_index() != 0:
    return
  path = pathlib.Path(workdir, FILE)
  try:
    home = path.parent / assets_lib.DIRECTORY
    staging = home.with_name(f'{home.name}.partial')
    shutil.rmtree(staging, ignore_errors=True)
    assets.save(staging)
    home.mkdir(exist_ok=True)
    for file in staging.iterdir():
      file.replace(home / file.name)
    staging.rmdir()
    json_file.write(path, described)
  except OSError as error:
    raise checkpoint.CheckpointError(f'cannot write to {workdir}: {error}') from error


def read(workdir: str | pathlib.Path) -> dict:
  """What the run in `workdir` says of itself.

  Raises:
    CheckpointError: there is no run.
  """
  path = pathlib.Path(workdir, FILE)
  if not path.exists() and (saved := checkpoint.steps(workdir)):  # each of which has a copy
    path = checkpoint.folder(workdir, saved[-1]) / 'metadata' / 'metadata'
  try:
    # What others described may leave some of it out.
    said = {'packing': 0, 'libraries': {}} | json_file.read(path)
    kinds = {'config': dict, 'vocabulary': str, 'records': list}
    kinds |= {'packing': int, 'libraries': dict}
    if not all(isinstance(said[name], kind) for name, kind in kinds.items()):
      raise ValueError(f'it needs {", ".join(kinds)}')
    return {name: said[name] for name in kinds}
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise checkpoint.CheckpointError(f'{path}: no run is described here ({error})') from error


def config_of(workdir: str | pathlib.Path) -> config_lib.Config:
  """Settings of the run in `workdir`.

  Raises:
    CheckpointError: there is no run.
  """
  try:
    return config_lib.from_config_dict(read(workdir)['config'])
  except config_lib.ConfigError as error:
    raise checkpoint.CheckpointError(f'{pathlib.Path(workdir, FILE)}: {error}') from error
