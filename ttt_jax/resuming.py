"""What a run that goes on may find changed: its settings, its folder, and its checkpoints."""

import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from ttt_jax import checkpoint, description, errors, together
from ttt_jax import config as config_lib

# What may change from one start of a run to the next without changing what it learns from, or
# what it is: where data lie, who makes batches, how the model is computed.
# They may be others on each machine.
_OF_MACHINES = ('data.directory', 'data.cache', 'data.threads', 'data.workers')
_FREE = (
  *_OF_MACHINES,
  *(f'model.{key}' for key in config_lib.HOW_COMPUTED),
)
_FIXED = (
  *('vocabulary', 'records', 'packing', 'seed', 'data', 'mask', 'objective', 'model'),
  *('train.freeze', 'optimizer.name'),
)


class AnotherRunError(checkpoint.CheckpointError):
  """The folder holds another run than the one that is to go on."""

  exit_code = errors.FINAL


def refuse_disagreement(described: dict) -> None:
  """Refuses processes that would train something else than the first one; all call it.

  Their programs have the same shapes, so that nothing would fail: parameters would drift
  apart, and a batch have rows of several plans.

  Args:
    described: the run as this process would train it, as `description.of` gives it.

  Raises:
    ConfigError: this process has other settings, data or libraries than the first one.
  """
  mine = {name: each for name, each in _flat(described) if name not in _OF_MACHINES}
  differ = list(_differences(together.of_first(mine), mine))
  if differ:
    said = ', '.join(f'{name} {now} (there {was})' for name, was, now in differ)
    raise config_lib.ConfigError(
      f'unlike process 0, this one has {said}: start all with the same flags, data sets and '
      'libraries'
    )


def refuse_another(
  workdir: str | pathlib.Path, described: dict, allowed: Sequence[str] = ()
) -> None:
  """Shows which settings differ from those of the run in a folder, and refuses another run.

  What may change from one start of a run to the next is how long it trains, how it is
  computed and laid on devices and by which libraries, how it decodes, the rates of its
  optimizer, and the weights of its data sets in the steps to come. All else makes other
  batches or another network.

  Args:
    workdir: folder of the run.
    described: the run that is to go on there, as `description.of` gives it.
    allowed: names of settings that may differ all the same, such as `data.row_length`.

  Raises:
    AnotherRunError: names all settings that differ and may not.
    CheckpointError: the folder's description cannot be read.
    ConfigError: there is no setting of a name in `allowed`, or the folder is a URL.
  """
  if '://' in str(workdir):
    raise config_lib.ConfigError(
      f'{workdir}: not a folder; mount the storage and name the folder'
    )
  known = [name for name, _ in _flat(described)]
  for name in allowed:
    if name not in known:
      raise config_lib.ConfigError(f'--allow: no setting {name}{errors.nearest(name, known)}')
  if not pathlib.Path(workdir, description.FILE).exists() and not checkpoint.steps(workdir):
    return
  differ = list(_differences(*map(dict, map(_flat, (description.read(workdir), described)))))
  refused = [each for each in differ if _matters(workdir, *each) and each[0] not in allowed]
  if differ:
    lines = [f'  {name}: {was} -> {now}' for name, was, now in differ]
    logging.info('%s goes on with other settings:\n%s', workdir, '\n'.join(lines))
  if refused:
    said = ', '.join(f'another {name} ({was}; now {now})' for name, was, now in refused)
    names = ','.join(name for name, _, _ in refused)
    raise AnotherRunError(
      f'{workdir} holds a run with {said}: use another folder, or, where you mean this run to '
      f'go on with other batches or another network, --allow={names}'
    )


def _matters(workdir: str | pathlib.Path, name: str, was: Any, now: Any) -> bool:
  """Whether a setting that differs makes it another run."""
  if name == 'data.changes':
    return _until(workdir, was) != _until(workdir, now)
  return (name in _FIXED or name.split('.')[0] in _FIXED) and name not in _FREE


def _until(workdir: str | pathlib.Path, changes: list) -> list:
  """Of changes that begin with a step, those of steps that the run in `workdir` has done."""
  try:
    done = checkpoint.latest(workdir)
  except checkpoint.CheckpointError:
    return []
  # They were written by any version, and may be none.
  return [change for change in changes or () if not _is_to_come(change, done)]


def _is_to_come(change: Any, done: int) -> bool:
  step = change[0] if isinstance(change, list) and change else None
  return isinstance(step, int | float) and step >= done


def newest_whole(workdir: str | pathlib.Path) -> int | None:
  """The latest step that is as it was written, once what is damaged has been set aside.

  All processes call it: each reads a part of the files. Damaged steps that are newer are
  moved to the folder `damaged`, and stay there. A step that cannot be read is damaged where
  one before it can be: the disk is broken there, and storage answers.

  Returns:
    The step; None if none was ever saved.

  Raises:
    CheckpointError: steps were damaged, now or before, and none is left; or the folder of a
      run has lost that of its checkpoints. Or storage does not answer, and nothing is moved.
  """
  damaged, unreadable = [], False
  while (step := _newest(workdir, damaged)) is not None:
    found = checkpoint.damage(workdir, step)
    if not found.lines:
      break
    damaged.append(step)
    unreadable = found.unreadable
  if step is None and unreadable:
    raise checkpoint.CheckpointError(
      f'{workdir}: step {damaged[0]} cannot be read, and none before it can: does the storage '
      f'answer? If the disk is broken, move the steps to {checkpoint.DAMAGED}, bring back one'
    )
  for each in damaged if jax.process_index() == 0 else []:
    set_aside(workdir, each)
  if step is None and damaged:
    raise _none_whole(workdir)
  return step


def _newest(workdir: str | pathlib.Path, damaged: Sequence[int]) -> int | None:
  """The latest step before those that are damaged; None if there is none.

  Raises:
    CheckpointError: there is none and there was one, as `newest_whole` says.
  """
  steps = together.checked(lambda: checkpoint.steps(workdir))
  newest = max((step for step in steps if not damaged or step < damaged[-1]), default=-1)
  aside = any(pathlib.Path(workdir, checkpoint.DAMAGED).glob('*'))
  # It was made before the description was written.
  lost = (
    pathlib.Path(workdir, description.FILE).exists()
    and not pathlib.Path(workdir, checkpoint.DIRECTORY).exists()
  )
  # The first process decides: others may see another step than it does.
  seen = multihost_utils.broadcast_one_to_all(np.array([newest, aside, lost]))
  newest, aside, lost = map(int, seen)
  if newest >= 0:
    return newest
  if aside and not damaged:
    raise _none_whole(workdir)
  if lost and not damaged:
    raise checkpoint.CheckpointError(
      f'{workdir} is described as a run, but has no folder {checkpoint.DIRECTORY}: bring it '
      f'back, or delete {description.FILE} to begin anew'
    )
  return None


def _none_whole(workdir: str | pathlib.Path) -> checkpoint.CheckpointError:
  return checkpoint.CheckpointError(
    f'{workdir}: no checkpoint is whole; what is left of them lies in the folder '
    f'{checkpoint.DAMAGED}. Bring back a copy of one, or move it away to begin anew'
  )


def wait_for(
  checkpoints: ocp.CheckpointManager, step: int | None, patience: float = 60
) -> None:
  """Waits until this process, too, sees `step` as the latest; else it would save by itself.

  Args:
    checkpoints: as `checkpoint.opened` gives it.
    step: as `newest_whole` gives it.
    patience: seconds; file systems of networks take their time.

  Raises:
    CheckpointError: it sees another one.
  """
  end = time.monotonic() + patience
  while (seen := checkpoints.latest_step()) != step:
    if time.monotonic() > end:
      raise checkpoint.CheckpointError(
        f'{checkpoints.directory}: process {jax.process_index()} sees step {seen} as the '
        f'latest, but process 0 sees {step}'
      )
    time.sleep(0.1)
    checkpoints.reload()


def set_aside(workdir: str | pathlib.Path, step: int) -> pathlib.Path:
  """Moves a step to the folder `damaged`, under a name that is free; returns its new place."""
  home = pathlib.Path(workdir, checkpoint.DAMAGED)
  home.mkdir(exist_ok=True)
  number, target = 0, home / str(step)
  while target.exists():
    number += 1
    target = home / f'{step}.{number}'
  checkpoint.folder(workdir, step).rename(target)
  logging.error('step %d of %s is damaged, and now lies in %s', step, workdir, target)
  return target


def _differences(was: dict, now: dict) -> Iterator[tuple[str, Any, Any]]:
  """What differs between two descriptions by dotted name: name, old value, new value."""
  for name in dict.fromkeys([*was, *now]):
    if was.get(name) != now.get(name):
      yield name, was.get(name), now.get(name)


def _flat(described: dict) -> Iterator[tuple[str, Any]]:
  """All that a run says of itself, by dotted name."""
  # JSON knows no tuples: both sides are compared as JSON has them.
  described = json.loads(json.dumps(described))
  for part, value in (described | described['config']).items():
    if part == 'config':
      continue
    if isinstance(value, dict):
      yield from ((f'{part}.{name}', each) for name, each in value.items())
    else:
      yield part, value
