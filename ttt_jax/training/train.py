"""Trains on data sets of records."""

import pathlib

from absl import logging

from data_pipelines.stream import loader, mixture, rows
from ttt_jax import config as config_lib
from ttt_jax.training import loop, state


def train(
  config: config_lib.Config,
  workdir: str | pathlib.Path,
  profiled: range = range(0),
  judge: loop.Judge | None = None,
  kind: type[rows.Rows] = rows.Rows,
) -> state.State:
  """Opens the data sets that `config.data` names and trains on it in `workdir`.

  Args:
    config: the settings.
    workdir: folder of the run.
    profiled: steps of which traces are written (see `trace`).
    judge: is asked as `loop.train` says.
    kind: of rows that documents are made into; others are for comparison.

  Raises:
    UserError: the data set, the folder or the settings cannot be used.
  """
  data = config.data
  sources = mixture.open_all(data)
  stream = kind(sources, data, config.mask, config.objective, config.seed)
  for source, deck, about in zip(sources, stream.plan.decks, stream.plan.epochs()):
    logging.info(
      '%s: %d records, %.1f %% of all that come, once in about %.0f steps',
      source.directory,
      len(deck),
      100 * about[0],
      about[1] / data.batch_size,
    )

  def batches(start: int, part: int, parts: int):
    return loader.batches(
      stream,
      data.batch_size,
      config.train.steps,
      start=start,
      process=part,
      processes=parts,
      threads=data.threads,
      workers=data.workers,
    )

  return loop.train(config, sources[0].assets, batches, workdir, profiled, judge)
