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


def layout(
  model: transformer.Transformer, optimizer: optax.GradientTransformation, mesh: Mesh
) -> State:
  """Shapes, dtypes and shardings of a state; nothing is allocated."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
    boxed = jax.eval_shape(lambda: _init(model, optimizer, jax.random.key(0)))
    shardings = sharding.of_boxed(boxed, mesh)

  def below(where, part):
    # `part` is one array, or nothing where a rule of the optimizer keeps nothing.
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), part
    )

  return jax.tree.map(below, shardings, nn.unbox(boxed))


def shardings_of(layout: State) -> State:
  """The shardings alone."""
  return jax.tree.map(lambda leaf: leaf.sharding, layout)


def fresh(
  model: transformer.Transformer,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  layout: State,
  seed: int,
) -> State:
  """A random state, made in place on the mesh."""

  def init(key):
    return nn.unbox(_init(model, optimizer, key))

  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
    return jax.jit(init, out_shardings=shardings_of(layout))(jax.random.key(seed))


def around(
  params: Any, optimizer: optax.GradientTransformation, mesh: Mesh, layout: State
) -> State:
  """The first state of a run that starts from `params`, laid out already."""

  def init(params):
    return jnp.zeros((), jnp.int32), optimizer.init(params)

  where = shardings_of(layout)
  with jax.set_mesh(mesh):
    step, moments = jax.jit(init, out_shardings=(where.step, where.optimizer))(params)
  return State(step, params, moments)


def count(params) -> int:
  """Number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))
