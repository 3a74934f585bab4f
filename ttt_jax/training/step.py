"""One step of training: a pure function of the state and a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import losses, sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import transformer
from ttt_jax.training import optimizer as optimizer_lib
from ttt_jax.training import state as state_lib

Step = Callable[
  [state_lib.State, batch_lib.Batch], tuple[state_lib.State, losses.Sums, jax.Array]
]


def loss(
  model: transformer.Transformer,
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  params,
  batch: batch_lib.Batch,
) -> tuple[jax.Array, losses.Sums]:
  """The objective of a batch, float32 [], and the sums behind the metrics."""
  variables, c = {'params': params}, model.config
  view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
  hidden = model.apply(variables, *view, method='hidden')
  head = model.apply(variables, method='output_layer')
  return losses.joint(hidden, head, batch, vocabulary, objective, c.loss_chunk)


def make(
  model: transformer.Transformer,
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  shardings: state_lib.State,
  freeze: str = '',
) -> Step:
  """The compiled step; what `freeze` names gets no gradient (see `optimizer.frozen`).

  Returns:
    A function of the state (whose memory it takes over) and a global batch on the mesh,
    to the next state, the batch's sums, and the norm of the gradient before clipping.
  """

  def step(state, batch):
    still = optimizer_lib.frozen(state.params, freeze)

    def of_params(params):
      params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, still)
      return loss(model, vocabulary, objective, params, batch)

    (_, sums), gradient = jax.value_and_grad(of_params, has_aux=True)(state.params)
    updates, moments = optimizer.update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    norm = optax.global_norm(gradient).astype(jnp.float32)
    return state_lib.State(state.step + 1, params, moments), sums, norm

  compiled = jax.jit(
    step,
    in_shardings=(shardings, sharding.of_batch(mesh)),
    out_shardings=(shardings, sharding.replicated(mesh), sharding.replicated(mesh)),
    donate_argnums=0,
  )

  def run(state, batch):
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
      return compiled(state, batch)

  return run
