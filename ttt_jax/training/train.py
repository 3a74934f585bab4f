"""Trains on data sets of records."""

import pathlib
from collections.abc import Sequence

from absl import logging

from data_pipelines.stream import loader, mixture, packing, rows
from ttt_jax import config as config_lib
from ttt_jax import together
from ttt_jax.training import loop, state


def train(
  config: config_lib.Config,
  workdir: str | pathlib.Path,
  profiled: range = range(0),
  judge: loop.Judge | None = None,
  kind: type[rows.Rows] = rows.Rows,
  allowed: Sequence[str] = (),
) -> state.State:
  """Opens the data sets that `config.data` names and trains on it in `workdir`.

  Args:
    config: the settings.
    workdir: folder of the run.
    profiled: steps of which traces are written (see `trace`).
    judge: is asked as `loop.train` says.
    kind: of rows that documents are made into; others are for comparison.
    allowed: settings that may differ from those of the run in `workdir` (see `resuming`).

  Raises:
    UserError: the data set, the folder or the settings cannot be used, here or in another
      process.
    Stopped: the run was told to stop.
  """
  data = config.data

  def opened():
    sources = mixture.open_all(data)
    return sources, kind(sources, data, config.mask, config.objective, config.seed)

  sources, stream = together.checked(opened)
  for source, deck, about in zip(sources, stream.plan.decks, stream.plan.epochs()):
    logging.info(
      '%s: %d records, %.1f %% of all that come, once in about %.0f steps',
      source.directory,
      len(deck),
      100 * about[0],
      about[1] / data.batch_size,
    )

  def batches(start: int, own: Sequence[int]):
    return loader.batches(
      stream,
      data.batch_size,
      config.train.steps,
      start=start,
      own=own,
      threads=data.threads,
      workers=data.workers,
    )

  def records(step: int) -> list[str]:
    first = step * data.batch_size
    found = (stream.plan.records(row) for row in range(first, first + data.batch_size))
    return [
      f'{sources[which].directory}: {sources[which][record].key}'
      for pairs in found
      for which, record in pairs
    ]

  fingerprints = [source.fingerprint for source in sources]
  feed = loop.Feed(sources[0].assets, fingerprints, packing.VERSION, batches, records)
  return loop.train(config, feed, workdir, profiled, judge, allowed)
