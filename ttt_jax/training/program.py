"""What a run computes, put together from its settings, before anything is allocated."""

from typing import NamedTuple

import optax
from jax.sharding import Mesh

from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import transformer
from ttt_jax.training import guard, optimizer, state, step


class Program(NamedTuple):
  """The parts of a run, on a mesh.

  Attributes:
    model: the network.
    optimizer: moves its parameters.
    layout: shapes, dtypes and shardings of the state.
    step: from one state to the next.
  """

  model: transformer.Transformer
  optimizer: optax.GradientTransformation
  layout: state.State
  step: step.Step


def assemble(
  config: config_lib.Config, vocabulary: vocabulary_lib.Vocabulary, mesh: Mesh
) -> Program:
  """The program of a run.

  Raises:
    ConfigError: the mesh does not divide the model or the batch.
  """
  train, data = config.train, config.data
  sharding.check_model(config.model, mesh)
  sharding.check_batch(mesh, data.batch_size, data.row_length, train.accumulate)
  model = transformer.Transformer(config.model, vocabulary.size)
  rule = optimizer.make(config.optimizer, train.steps, train.freeze)
  rule = guard.guarded(rule, config.guard)
  layout = state.layout(model, rule, mesh)
  made = step.Step(
    model,
    vocabulary,
    config.objective,
    rule,
    mesh,
    state.shardings_of(layout),
    train.freeze,
    train.accumulate,
  )
  return Program(model, rule, layout, made)
