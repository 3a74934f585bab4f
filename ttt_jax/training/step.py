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


def _accumulated(of_part, params, batch: batch_lib.Batch, parts: int):
  """Gradient of the objective of a whole batch, and its sums, a part of its rows at a time.

  Part i is rows i, i + parts, and so on, so that each holds rows of every device.
  """
  differentiate = jax.grad(of_part, has_aux=True)
  if parts == 1:
    return differentiate(params, batch)

  def add(total, part):
    return jax.tree.map(jnp.add, total, differentiate(params, part)), None

  def cut(array):
    return array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)

  split = jax.tree.map(cut, batch)
  first = jax.tree.map(lambda a: a[0], split)
  zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(differentiate, params, first))
  return jax.lax.scan(add, zeros, split)[0]


def make(
  model: transformer.Transformer,
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  shardings: state_lib.State,
  freeze: str = '',
  parts: int = 1,
) -> Step:
  """The compiled step.

  Args:
    model: the network.
    vocabulary: its ids.
    objective: of the batch.
    optimizer: moves the parameters.
    mesh: on which everything lies.
    shardings: of the state.
    freeze: names the parameters that get no gradient (see `optimizer.frozen`).
    parts: in which a batch is worked off one after the other, for the memory of one of them.

  Returns:
    A function of the state (whose memory it takes over) and a global batch on the mesh,
    to the next state, the batch's sums, and the norm of the gradient before clipping.
  """

  def step(state, batch):
    still = optimizer_lib.frozen(state.params, freeze)

    def of_part(params, part):
      params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, still)
      _, sums = loss(model, vocabulary, objective, params, part)
      return sums.objective, sums

    gradient, sums = _accumulated(of_part, state.params, batch, parts)
    divisor = jnp.maximum(sums.normalizer, 1)
    gradient = jax.tree.map(lambda g: g / divisor, gradient)
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
