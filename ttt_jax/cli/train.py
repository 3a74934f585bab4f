"""Trains a model.

python -m ttt_jax.cli.train --config=configs/tiny.py --config.data.directory=DATA \
    --workdir=RUN
"""

import functools

import jax
from absl import flags

from data_pipelines import loader, records, rows
from ttt_jax import config as config_lib
from ttt_jax.cli import settings
from ttt_jax.training import loop

_CONFIG = settings.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; a run in it goes on.', required=True
)


def train(config: config_lib.Config, workdir: str) -> None:
  """Opens the data set that `config` names and trains on it in `workdir`."""
  source = records.Source(config.data.directory, config.data.split)
  stream = rows.Rows(source, config.data, config.mask, config.objective, config.seed)

  def batches(start: int):
    return loader.batches(
      stream,
      config.data.batch_size,
      config.train.steps,
      start=start,
      process=jax.process_index(),
      processes=jax.process_count(),
      threads=config.data.threads,
    )

  loop.train(config, source.assets, batches, workdir)


def main():
  """Reads the flags."""
  train(settings.checked(_CONFIG.value), _WORKDIR.value)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
