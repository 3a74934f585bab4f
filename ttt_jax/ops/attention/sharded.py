"""Attention by intervals on a mesh."""

import functools

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

from ttt_jax.ops import attention


def interval_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  kv_start: jax.Array,
  kv_end: jax.Array,
  *,
  implementation: str,
  interpret: bool = False,
  **settings,
) -> jax.Array:
  """As `attention.interval_attention`, on the mesh that is set, by the logical rules in force.

  Rows lie where the rules put 'batch', heads where they put 'heads' and 'kv_heads', queries
  and keys where they put 'length': each device attends from its queries to all keys of its
  rows, which are gathered along the axes of 'length' (and their gradients scattered). 'dense'
  is left to the partitioner of XLA, as is everything where no mesh is set.

  Args:
    q: [B, L, N, H]; this and the other arrays as there.
    k: [B, S, K, H].
    v: [B, S, K, H].
    kv_start: int32 [B, L] or [B, L, 2], counted along the whole of the keys.
    kv_end: as `kv_start`.
    implementation: as there; 'auto' goes by the mesh's platform.
    interpret: as there.
    **settings: others of that function.

  Raises:
    ValueError: the mesh does not divide rows, lengths or heads.
  """
  length = min(q.shape[1], k.shape[1])
  implementation = attention.resolve(implementation, length, interpret)
  local = functools.partial(
    attention.interval_attention, implementation=implementation, interpret=interpret, **settings
  )
  mesh = jax.sharding.get_abstract_mesh()
  if implementation == 'dense' or mesh.empty or mesh.size == 1:
    return local(q, k, v, kv_start, kv_end)
  queries = nn.logical_to_mesh_axes(('batch', 'length', 'heads', 'head'))
  keys = nn.logical_to_mesh_axes(('batch', 'length', 'kv_heads', 'head'))
  edges = PartitionSpec(*queries[:2])
  _check(mesh, 'q', q.shape, queries)
  _check(mesh, 'k', k.shape, keys)

  def on_device(q, k, v, kv_start, kv_end):
    if keys[1] is not None:
      k, v = (jax.lax.all_gather(x, keys[1], axis=1, tiled=True) for x in (k, v))
    return local(q, k, v, kv_start, kv_end)

  # A kernel in interpret mode does not say along which axes its result varies.
  return jax.shard_map(
    on_device, in_specs=(queries, keys, keys, edges, edges), out_specs=queries, check_vma=False
  )(q, k, v, kv_start, kv_end)


def _check(mesh, name: str, shape: tuple[int, ...], spec: PartitionSpec) -> None:
  for axis, (size, names) in enumerate(zip(shape, spec)):
    names = (names,) if isinstance(names, str) else names or ()
    ways = 1
    for part in names:
      ways *= mesh.shape[part]
    if size % ways:
      raise ValueError(
        f'attention cannot cut axis {axis} of {name} {shape} along {names} of the mesh, '
        f'{ways} ways: change the shape or the mesh, or choose attention dense'
      )
