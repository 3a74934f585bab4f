"""Looks after the checkpoints of a run.

ttt-checkpoint list --workdir=RUN                 steps, their sizes and times
ttt-checkpoint verify --workdir=RUN               holds every file against its hash
ttt-checkpoint prune --workdir=RUN --keep=2 --keep-every=10000   deletes all other steps
"""

import functools
import pathlib
import sys
import time

from absl import flags

from ttt_jax import checkpoint, hashes
from ttt_jax.cli import settings
from ttt_jax.training import ledger

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
_KEEP = flags.DEFINE_integer('keep', None, 'prune: so many of the latest stay.', lower_bound=1)
_EVERY = flags.DEFINE_integer(
  'keep_every', 0, 'prune: steps that are multiples of it stay too; 0: none.', lower_bound=0
)


def show(workdir: str | pathlib.Path) -> None:
  """Prints what there is, steps that were set aside included.

  Raises:
    CheckpointError: there is no such folder.
  """
  if not pathlib.Path(workdir).is_dir():
    raise checkpoint.CheckpointError(f'{workdir}: no such folder of a run')
  kept = [checkpoint.folder(workdir, step) for step in checkpoint.steps(workdir)]
  aside = sorted(pathlib.Path(workdir, checkpoint.DAMAGED).glob('*'))
  for path in [*kept, *aside]:
    try:
      size = sum(file.stat().st_size for file in path.rglob('*') if file.is_file())
      when = time.strftime('%F %T', time.localtime(path.stat().st_mtime))
    except FileNotFoundError:  # the run goes on, and keeps the latest
      continue
    name = path.name if path in kept else f'{checkpoint.DAMAGED}/{path.name}'
    print(f'{name:>12}  {size / 2**20:12,.1f} MiB  {when}')
  if not kept:
    print('no checkpoint')
  print(ledger.summary(workdir))


def verify(workdir: str | pathlib.Path) -> int:
  """Prints which steps are whole; returns how many are not. Changes nothing."""
  damaged = 0
  for step in checkpoint.steps(workdir):
    where = checkpoint.folder(workdir, step)
    try:
      wrong = hashes.damage(where)
    except OSError as error:
      wrong = [f'cannot be read: {error}']
    if wrong and step not in checkpoint.steps(workdir):  # the run goes on, and keeps the latest
      print(f'{step}: deleted meanwhile')
      continue
    damaged += bool(wrong)
    print(f'{step}: {"damaged" if wrong else "whole"}')
    for line in wrong:
      print(f'  {line}')
  return damaged


def _verify() -> None:
  checkpoint.latest(_WORKDIR.value)  # of none, nothing can be said
  if damaged := verify(_WORKDIR.value):
    sys.exit(f'{damaged} damaged')


def _prune() -> None:
  if _KEEP.value is None:
    raise checkpoint.CheckpointError('prune deletes: say how many stay, --keep=N')
  gone = checkpoint.prune(_WORKDIR.value, _KEEP.value, _EVERY.value)
  print(f'deleted: {", ".join(map(str, gone)) or "none"}')


run = functools.partial(
  settings.run,
  commands={'list': lambda: show(_WORKDIR.value), 'verify': _verify, 'prune': _prune},
)

if __name__ == '__main__':
  run()
