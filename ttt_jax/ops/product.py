"""Products of activations with weights that are kept in float32."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3, 4))
def product(
  spec: str, x: jax.Array, weight: jax.Array, axes: tuple[str, ...], reduce_dtype: str
) -> jax.Array:
  """`einsum(spec, x, weight)` in the dtype of `x`.

  Each device has the weight's gradient from its own positions, and then devices add theirs
  up. The derivative of a cast to bfloat16 would have them add up in bfloat16, where the
  error grows with their number; here the dtype is chosen.

  Args:
    spec: of two operands and a result, where each letter stands in two of the three.
    x: activations.
    weight: float32.
    axes: logical axes of the weight; its gradient is added up along the mesh axes of 'summed'
      before those of 'embed', where rules of both are in force.
    reduce_dtype: of the weight's gradient until it is added up over devices.
  """
  del axes, reduce_dtype
  return jnp.einsum(spec, x, weight.astype(x.dtype))


def _forward(spec, x, weight, axes, reduce_dtype):
  return product(spec, x, weight, axes, reduce_dtype), (x, weight)


def _backward(spec, axes, reduce_dtype, kept, cotangent):
  x, weight = kept
  operands, result = spec.split('->')
  first, second = operands.split(',')
  d_x = jnp.einsum(f'{result},{second}->{first}', cotangent, weight.astype(x.dtype))
  d_weight = jnp.einsum(
    f'{first},{result}->{second}', x, cotangent, preferred_element_type=reduce_dtype
  )
  summed = tuple('summed' if axis == 'embed' else axis for axis in axes)
  d_weight = nn.with_logical_constraint(d_weight, summed)
  return d_x, d_weight.astype(weight.dtype)


product.defvjp(_forward, _backward)
