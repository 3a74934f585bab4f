"""Trains on a data set of records."""

import pathlib

from data_pipelines import loader, records, rows
from ttt_jax import config as config_lib
from ttt_jax.training import loop, state


def train(
  config: config_lib.Config, workdir: str | pathlib.Path, profiled: range = range(0)
) -> state.State:
  """Opens the data set that `config.data` names and trains on it in `workdir`.

  Traces of the steps `profiled` are written (see `trace`).

  Raises:
    UserError: the data set, the folder or the settings cannot be used.
  """
  data = config.data
  source = records.Source(data.directory, data.split)
  stream = rows.Rows(source, data, config.mask, config.objective, config.seed)

  def batches(start: int, part: int, parts: int):
    return loader.batches(
      stream,
      data.batch_size,
      config.train.steps,
      start=start,
      process=part,
      processes=parts,
      threads=data.threads,
    )

  return loop.train(config, source.assets, batches, workdir, profiled)
