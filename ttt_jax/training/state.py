"""The state of a run, and how it comes to lie on the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from ttt_jax import sharding
from ttt_jax.model import transformer


class State(NamedTuple):
  """What a step changes.

  Attributes:
    step: int32 [], steps done.
    params: tree of float32 arrays.
    optimizer: state of the optimizer.
  """

  step: jax.Array
  params: Any
  optimizer: Any


def _init(model: transformer.Transformer, optimizer: optax.GradientTransformation, key):
  ids = jnp.zeros((1, 2), jnp.int32)
  params = model.init(key, ids, ids, ids, ids + 1)['params']
  # optax maps over the boxes, so the moments carry the names of their parameters' axes.
  return State(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def make(
  model: transformer.Transformer,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  seed: int,
) -> tuple[State, State]:
  """A fresh state, made in place on the mesh, and its shardings."""

  def init(key):
    return _init(model, optimizer, key)

  key = jax.random.key(seed)
  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
    shardings = sharding.of_boxed(jax.eval_shape(init, key), mesh)
    state = jax.jit(lambda k: nn.unbox(init(k)), out_shardings=shardings)(key)
  return state, shardings


def count(params) -> int:
  """Number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
