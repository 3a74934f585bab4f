"""Looking up the rows of a table that lies in parts on a mesh.

Left to XLA's partitioner, the result may be made whole on every device and then cut anew.
Here the rows are gathered from where they are stored, as those of the output layer are, and a
table that is cut along its vocabulary stays so.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ttt_jax.ops import axes as axes_lib

F32 = jnp.float32


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def lookup(
  table: jax.Array, ids: jax.Array, dtype: str, reduce_dtype: str, axes: axes_lib.Axes
) -> jax.Array:
  """Rows of `table`.

  A frequent id, the mask's above all, gets thousands of gradients a step: each device adds
  them up in float32.

  Args:
    table: float32 [V, D].
    ids: int32 [B, L].
    dtype: of the result, and of what is gathered.
    reduce_dtype: in which devices add up the gradient.
    axes: how the arrays lie on the mesh that `jax.set_mesh` has set.

  Returns:
    [B, L, D].

  Raises:
    ValueError: the table is stored along axes that do not cut the positions.
  """
  if not any(axes):
    return table[ids].astype(dtype)
  axes.check()

  def on_device(table, ids):
    rows = axes_lib.gather(table.astype(dtype), axes)
    if not axes.vocabulary:
      return rows[ids]
    place, here = _place(ids, len(rows), axes)
    return lax.psum(jnp.where(here[..., None], rows[place], 0), axes.vocabulary)

  specs = axes.of_table, axes.of_tokens
  return jax.shard_map(on_device, in_specs=specs, out_specs=axes.of_tokens)(table, ids)


def _forward(table, ids, dtype, reduce_dtype, axes):
  # Of the table, the backward pass needs the shape alone.
  return lookup(table, ids, dtype, reduce_dtype, axes), (ids, table)


def _backward(dtype, reduce_dtype, axes, kept, cotangent):
  del dtype
  ids, table = kept
  if not any(axes):
    return jnp.zeros(table.shape, F32).at[ids].add(cotangent.astype(F32)), None

  def on_device(ids, cotangent, table):
    place, count = ids, len(table) * math.prod(map(lax.axis_size, axes.stored))
    if axes.vocabulary:
      place, here = _place(ids, count, axes)
      place = jnp.where(here, place, count)  # out of bounds: dropped
    whole = jnp.zeros((count, cotangent.shape[-1]), F32)
    whole = axes_lib.varying(whole, axes.tokens + axes.vocabulary)
    whole = whole.at[place].add(cotangent.astype(F32), mode='drop')
    return axes_lib.reduce(whole, axes, reduce_dtype).astype(F32)

  specs = axes.of_tokens, axes.of_tokens, axes.of_table
  made = jax.shard_map(on_device, in_specs=specs, out_specs=axes.of_table)
  return made(ids, cotangent, table), None


lookup.defvjp(_forward, _backward)


def _place(ids, count: int, axes: axes_lib.Axes):
  """Where ids lie among the `count` rows of this device, and whether they do."""
  place = ids - lax.axis_index(axes.vocabulary) * count
  here = (place >= 0) & (place < count)
  return jnp.where(here, place, 0), here
