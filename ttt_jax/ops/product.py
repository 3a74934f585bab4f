"""Products of activations with weights that are kept in float32."""

import functools

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ttt_jax.ops import dot


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def product(
  spec: str, x: jax.Array, weight: jax.Array, axes: tuple[str, ...], reduce_dtype: str
) -> jax.Array:
  """`einsum(spec, x, weight)` in the dtype of `x`, by the name 'product' for remat policies.

  Each device has the weight's gradient from its own positions, and then devices add theirs
  up. The derivative of a cast to bfloat16 would have them add up in bfloat16, where the
  error grows with their number; here the dtype is chosen.

  Args:
    spec: of two operands and a result, where each letter stands in two of the three.
    x: activations.
    weight: float32.
    axes: logical axes of the weight. It lies cut along the mesh axes of 'embed', and where the
      rules of 'summed' cut it less, it is gathered, and its gradient added up, in two stages.
    reduce_dtype: of the weight's gradient until it is added up over devices.
  """
  del reduce_dtype
  return _multiply(spec, x, weight, axes)


def _forward(spec, x, weight, axes, reduce_dtype):
  del reduce_dtype
  # Not by `product` itself, through which remat policies do not see the name.
  return _multiply(spec, x, weight, axes), (x, weight)


def _multiply(spec, x, weight, axes):
  out = dot.einsum(spec, x, _gathered_along_outer(weight.astype(x.dtype), axes))
  return checkpoint_name(out, 'product')


def _backward(spec, axes, reduce_dtype, kept, cotangent):
  x, weight = kept
  operands, result = spec.split('->')
  first, second = operands.split(',')
  whole = _gathered_along_outer(weight.astype(x.dtype), axes)
  d_x = dot.einsum(f'{result},{second}->{first}', cotangent, whole)
  d_weight = dot.einsum(f'{first},{result}->{second}', x, cotangent, reduce_dtype)
  return d_x, _gathered_along_outer(d_weight, axes).astype(weight.dtype)


def _gathered_along_outer(weight: jax.Array, axes: tuple[str, ...]) -> jax.Array:
  """The weight, or its gradient, between the two stages: cut along 'summed', not 'embed'."""
  cut = tuple('summed' if axis == 'embed' else axis for axis in axes)
  return nn.with_logical_constraint(weight, cut)


product.defvjp(_forward, _backward)
