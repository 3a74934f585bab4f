"""Products that are as exact as their operands.

Left to itself, JAX multiplies float32 in bfloat16 on TPUs, and in TF32 on GPUs.
"""

import jax
import jax.numpy as jnp


def precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
  """How to multiply arrays of a dtype, so that float32 is float32 on all devices."""
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def einsum(spec: str, a: jax.Array, b: jax.Array, out: jnp.dtype | None = None) -> jax.Array:
  """`jnp.einsum` of two arrays of one dtype, added up in `out`; by default in theirs."""
  return jnp.einsum(spec, a, b, precision=precision(a.dtype), preferred_element_type=out)


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  """`jnp.matmul` of two arrays of one dtype, added up in float32."""
  return jnp.matmul(a, b, precision=precision(a.dtype), preferred_element_type=jnp.float32)
