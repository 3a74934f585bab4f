"""One step of training: a pure function of the state and a batch."""

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


def loss(
  model: transformer.Transformer,
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  params,
  batch: batch_lib.Batch,
) -> tuple[jax.Array, losses.Sums]:
  """The objective of a batch, float32 [], and the sums behind the metrics."""
  variables = {'params': params}
  view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
  hidden = model.apply(variables, *view, method='hidden')
  head = model.apply(variables, method='output_layer')
  return losses.joint(hidden, head, batch, vocabulary, objective, model.config)


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


class Step:
  """The compiled step, a function of the state and a global batch."""

  def __init__(
    self,
    model: transformer.Transformer,
    vocabulary: vocabulary_lib.Vocabulary,
    objective: config_lib.Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    shardings: state_lib.State,
    freeze: str = '',
    parts: int = 1,
  ):
    """Compiles nothing yet.

    Args:
      model: the network.
      vocabulary: its ids.
      objective: of the batch.
      optimizer: moves the parameters.
      mesh: on which everything lies.
      shardings: of the state.
      freeze: names the parameters that get no gradient (see `optimizer.frozen`).
      parts: in which a batch is worked off one after the other, for the memory of one of
        them.
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

    self._mesh = mesh
    self._step = jax.jit(
      step,
      in_shardings=(shardings, sharding.of_batch(mesh)),
      out_shardings=(shardings, sharding.replicated(mesh), sharding.replicated(mesh)),
      donate_argnums=0,
    )

  def __call__(
    self, state: state_lib.State, batch: batch_lib.Batch
  ) -> tuple[state_lib.State, losses.Sums, jax.Array]:
    """Takes a step.

    Args:
      state: on the mesh; its memory is taken over.
      batch: a global one, on the mesh.

    Returns:
      The next state, the batch's sums, and the norm of the gradient before clipping.
    """
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      return self._step(state, batch)

  def lower(self, state: state_lib.State, batch: batch_lib.Batch) -> jax.stages.Lowered:
    """The step for arguments of these shapes, which may be abstract, ready to compile."""
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      return self._step.lower(state, batch)
