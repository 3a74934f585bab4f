"""One step of training: a pure function of the state and a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import losses, sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import transformer
from ttt_jax.training import guard
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


class Results(NamedTuple):
  """What a step tells beside the next state; the same in all processes.

  Attributes:
    sums: of the batch.
    norm: float32 [], of the gradient before clipping.
    verdict: whether the update was made.
    stop: bool [], whether a process wanted to stop when it called the step.
  """

  sums: losses.Sums
  norm: jax.Array
  verdict: guard.Verdict
  stop: jax.Array


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
      optimizer: moves the parameters, under a guard (see `guard.guarded`).
      mesh: on which everything lies.
      shardings: of the state.
      freeze: names the parameters that get no gradient (see `optimizer.frozen`).
      parts: in which a batch is worked off one after the other, for the memory of one of
        them.
    """

    def step(state, batch, stop):
      still = optimizer_lib.frozen(state.params, freeze)

      def of_part(params, part):
        params = jax.tree.map(lambda p, f: jax.lax.stop_gradient(p) if f else p, params, still)
        _, sums = loss(model, vocabulary, objective, params, part)
        return sums.objective, sums

      gradient, sums = _accumulated(of_part, state.params, batch, parts)
      divisor = jnp.maximum(sums.normalizer, 1)
      gradient = jax.tree.map(lambda g: g / divisor, gradient)
      norm = optax.global_norm(gradient).astype(jnp.float32)
      told = {'loss': sums.objective / divisor, 'norm': norm}
      updates, moments = optimizer.update(gradient, state.optimizer, state.params, **told)
      params = optax.apply_updates(state.params, updates)
      results = Results(sums, norm, guard.verdict(moments), stop.any())
      return state_lib.State(state.step + 1, params, moments), results

    each = NamedSharding(mesh, PartitionSpec(mesh.axis_names))  # device has a voice
    self._mesh, self._voices = mesh, jax.ShapeDtypeStruct((mesh.size,), bool, sharding=each)
    self._wishes = {}
    self._step = jax.jit(
      step,
      in_shardings=(shardings, sharding.of_batch(mesh), each),
      out_shardings=(shardings, sharding.replicated(mesh)),
      donate_argnums=0,
    )

  def __call__(
    self, state: state_lib.State, batch: batch_lib.Batch, stop: bool = False
  ) -> tuple[state_lib.State, Results]:
    """Takes a step.

    Args:
      state: on the mesh; its memory is taken over.
      batch: a global one, on the mesh.
      stop: whether this process wants to stop, of which all are told.

    Returns:
      The next state, and what the step tells.
    """
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      return self._step(state, batch, self._wish(stop))

  def _wish(self, stop: bool) -> jax.Array:
    """`stop` on all devices of this process; what it was made of once serves again."""
    if stop not in self._wishes:
      each, shape = self._voices.sharding, self._voices.shape
      own = np.full(len(each.addressable_devices), stop)
      self._wishes[stop] = jax.make_array_from_process_local_data(each, own, shape)
    return self._wishes[stop]

  def lower(self, state: state_lib.State, batch: batch_lib.Batch) -> jax.stages.Lowered:
    """The step for arguments of these shapes, which may be abstract, ready to compile."""
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      return self._step.lower(state, batch, self._voices)
