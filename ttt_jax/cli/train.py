r"""Trains a model.

ttt-train --config=configs/tiny.py --config.data.directory=DATA --workdir=RUN
"""

import functools

import jax
from absl import flags

from ttt_jax.cli import settings
from ttt_jax.training import trace, train

_CONFIG = settings.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; a run in it goes on.', required=True
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed', False, 'Find the other processes of the run, as on a TPU pod.'
)
_PROFILE = flags.DEFINE_string(
  'profile_steps', '', 'First and last step, such as 10:15: a trace goes to WORKDIR/profile.'
)


def main():
  """Reads the flags."""
  if _DISTRIBUTED.value:
    jax.distributed.initialize()
  config = settings.checked(_CONFIG.value)
  profiled = trace.parse(_PROFILE.value, config.train.steps)
  train.train(config, _WORKDIR.value, profiled)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
