"""The training loop: batches in, checkpoints and metrics out."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import batch as batch_lib
from ttt_jax import checkpoint, sharding
from ttt_jax import config as config_lib
from ttt_jax.training import metrics, optimizer, state
from ttt_jax.training import program as program_lib


def train(
  config: config_lib.Config,
  assets: assets_lib.Assets,
  batches: Callable[[int, int, int], Iterator[batch_lib.Batch]],
  workdir: str | pathlib.Path,
) -> state.State:
  """Trains up to `config.train.steps` and returns the last state.

  A run that was stopped goes on from its latest checkpoint: 1. the state is laid out,
  without allocating it; 2. it is filled from the latest checkpoint, else from
  `config.init.checkpoint`, else at random; 3. the folder's description is written; 4. the
  batches start at the state's step. They are a function of the step, so nothing else needs
  to be restored.

  Args:
    config: all settings.
    assets: of the data.
    batches: from a first step, a part's number and the number of parts, yields that part of
      each global batch.
    workdir: folder of the run.

  Raises:
    CheckpointError: `workdir` holds another kind of run, cannot be written, or is not one
      folder for all processes.
    ConfigError: the mesh does not fit the devices, the model or the batch.
  """
  about = checkpoint.describe(config, assets.vocabulary.fingerprint)
  checkpoint.refuse_another(workdir, about)
  checkpoint.refuse_unshared(workdir)
  mesh = sharding.make_mesh(config.mesh)
  parts = sharding.shard_of_process(mesh, config.data.batch_size)
  program = program_lib.assemble(config, assets.vocabulary, mesh)
  layout = program.layout
  logging.info('%.3g M parameters on %s', state.count(layout.params) / 1e6, mesh)
  with checkpoint.manager(workdir, config.train.keep) as checkpoints:
    if checkpoints.latest_step() is not None:
      done, *trees = checkpoint.restore(checkpoints, layout.params, layout.optimizer)
      current = state.State(jax.device_put(jax.numpy.int32(done), layout.step.sharding), *trees)
      logging.info('going on from step %d', done)
    elif config.init.checkpoint:
      params = _initial(config, assets, layout.params)
      current = state.around(params, program.optimizer, mesh, layout)
      logging.info('starting from %s', config.init.checkpoint)
    else:
      current = state.fresh(program.model, program.optimizer, mesh, layout, config.seed)
    checkpoint.claim(workdir, about, assets)
    stream = batches(int(current.step), *parts)
    return _run(
      *(config, program.step, current, stream, mesh, checkpoints, workdir, about),
      assets.vocabulary.size,
    )


def _initial(config: config_lib.Config, assets: assets_lib.Assets, layout) -> Any:
  """The parameters of the run that `config.init` names, if they fit this one."""
  source = config.init.checkpoint
  other = checkpoint.load_config(source).model
  assets_of_source = assets_lib.load(pathlib.Path(source, assets_lib.DIRECTORY))
  assets.refuse_mismatch(assets_of_source.fingerprints, source)
  wanted = dataclasses.asdict(other).items()
  wrong = [
    f'--config.model.{name}={value}'
    for name, value in wanted
    if name not in config_lib.HOW_COMPUTED and getattr(config.model, name) != value
  ]
  if wrong:
    raise config_lib.ConfigError(
      f'{source} is another model; add {" ".join(wrong)} '
      f'(or train with --config=configs/finetune.py:{source})'
    )
  return checkpoint.restore_params(source, layout)


def _run(config, step, current, stream, mesh, checkpoints, workdir, about, vocabulary_size):
  start, last = int(current.step), config.train.steps
  rate = optimizer.learning_rate(config.optimizer, last)
  writer = metrics.Writer(workdir, last, start, enabled=jax.process_index() == 0)
  try:
    for number, batch in enumerate(stream, start + 1):
      if number == start + 1:
        batch_lib.check(batch, vocabulary_size)
      batch = sharding.put_batch(batch, mesh, config.data.batch_size)
      current, sums, norm = step(current, batch)
      writer.add(sums, norm)
      if number % config.train.log_every == 0 or number == last:
        writer.report(number, learning_rate=float(rate(number - 1)))
      if number % config.train.checkpoint_every == 0 or number == last:
        checkpoint.save(checkpoints, number, current.params, current.optimizer, about)
  finally:
    writer.close()
    checkpoints.wait_until_finished()
  return current
