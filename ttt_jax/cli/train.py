r"""Trains a model.

ttt-train --config=configs/tiny.py --config.data.directory=DATA --workdir=RUN
"""

import functools

import jax
from absl import flags

from ttt_jax.cli import settings
from ttt_jax.training import train

_CONFIG = settings.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; a run in it goes on.', required=True
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Find the other processes of the run, as on a TPU pod.'
)


def main():
  """Reads the flags."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  train.train(settings.checked(_CONFIG.value), _WORKDIR.value)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
