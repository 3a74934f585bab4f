r"""Trains a model.

ttt-train --config=configs/tiny.py --config.data.directory=DATA --workdir=RUN
"""

import functools

from absl import flags

from ttt_jax.cli import settings
from ttt_jax.training import train

_CONFIG = settings.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; a run in it goes on.', required=True
)


def main():
  """Reads the flags."""
  train.train(settings.checked(_CONFIG.value), _WORKDIR.value)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
