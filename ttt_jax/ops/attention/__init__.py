"""Attention by intervals: every query sees one contiguous range of keys, or two."""

import functools

import jax
import jax.numpy as jnp

from ttt_jax import errors
from ttt_jax.ops.attention import chunked, dense, gpu, tpu

IMPLEMENTATIONS = ('auto', 'dense', 'chunked', 'tpu', 'gpu')

# On a CPU, the length from which `chunked` takes less time than `dense`, in a model too
# (benchmarks/kernels.py).
CHUNKED_FROM = 512


def interval_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  kv_start: jax.Array,
  kv_end: jax.Array,
  *,
  implementation: str,
  soft_cap: float | None = None,
  blocks: tuple[int, int] | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Softmax attention of each query over the keys of its intervals.

  The output and the log-sum-exp of every implementation bear the names 'attention_out' and
  'attention_lse' (`jax.ad_checkpoint.checkpoint_name`): a remat policy that saves both
  spares the backward pass the forward kernel.

  Args:
    q: [B, L, N, H] queries.
    k: [B, S, K, H] keys; head n of the queries uses head n // (N / K).
    v: [B, S, K, H] values.
    kv_start: int32 [B, L], first key that a query sees; or [B, L, 2], of two intervals
      that have no key in common.
    kv_end: int32, as `kv_start`, ends (exclusive) of the keys that it sees, at most S.
    implementation: 'dense' makes the [L, S] matrix of scores. 'chunked' is plain JAX for
      any platform, in memory linear in L and S. 'tpu' and 'gpu' are Pallas kernels. 'auto'
      is 'tpu' on a TPU and 'gpu' on a GPU; on a CPU it is 'chunked' where L and S are at
      least `CHUNKED_FROM`, else 'dense'. The platform is that of the mesh that is set, else
      of JAX's default device.
    soft_cap: bounds the scores s to soft_cap * tanh(s / soft_cap); None does not.
    blocks: queries and keys of a block, where the implementation's default is not wanted;
      'dense' has no blocks.
    interpret: runs the kernels of 'tpu' and 'gpu' on any platform, slowly, for tests.

  Returns:
    [B, L, N, H], of `q`'s dtype; the softmax is taken in float32. A query whose intervals
    are empty gives 0 and passes no gradient on, and what no query sees has no effect,
    whatever it holds.

  Raises:
    ValueError: there is no such implementation, the platform or the shapes do not suit it.
      No implementation gives way to another in silence.
  """
  _check_shapes(q, k, v, kv_start, kv_end)
  implementation = resolve(implementation, min(q.shape[1], k.shape[1]), interpret)
  start, end = (_interval_first(edge, k.shape[1]) for edge in (kv_start, kv_end))
  # Padding may hold anything, NaN included, and 0 * NaN would spread it: each implementation
  # sees to that, the kernels without another array of it.
  if implementation in ('tpu', 'gpu'):
    kernel = {'tpu': tpu, 'gpu': gpu}[implementation]
    return kernel.attention(q, k, v, start, end, soft_cap, blocks, interpret)
  if implementation == 'chunked':
    attend = functools.partial(chunked.attention, blocks=blocks)
  elif blocks is None:
    attend = dense.attention
  else:
    raise ValueError("attention 'dense' has no blocks; choose 'chunked', 'tpu' or 'gpu'")
  sees = (start < end).any(1)[..., None, None]
  out = attend(jnp.where(sees, q, 0), k, v, start, end, soft_cap)
  return jnp.where(sees, out, 0)


def platform() -> str:
  """What the code being traced will run on: 'cpu', 'gpu' or 'tpu'."""
  mesh = jax.sharding.get_abstract_mesh()
  if not mesh.empty and mesh.abstract_device is not None:
    name = mesh.abstract_device.platform
  elif isinstance(jax.config.jax_default_device, jax.Device):
    name = jax.config.jax_default_device.platform
  else:
    name = jax.default_backend()
  return 'gpu' if name in ('cuda', 'rocm') else name


def resolve(implementation: str, length: int, interpret: bool = False) -> str:
  """The implementation that is meant; see `interval_attention`.

  Args:
    implementation: as there.
    length: the lesser of L and S.
    interpret: as there.

  Raises:
    ValueError: there is none of that name.
    UserError: it does not run on this platform; a TPU may only be held by another process.
  """
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(
      f'unknown implementation of attention: {implementation!r}; '
      f'there are {", ".join(map(repr, IMPLEMENTATIONS))}'
    )
  here = platform()
  if implementation == 'auto':
    if here in ('tpu', 'gpu'):
      return here
    return 'chunked' if length >= CHUNKED_FROM else 'dense'
  if not interpret and not runs(implementation):
    raise errors.UserError(
      f"attention {implementation!r} does not run on the platform {here!r}; choose 'auto', "
      "'chunked' or 'dense' (config.model.attention)"
    )
  return implementation


def runs(implementation: str) -> bool:
  """Whether an implementation runs on this platform."""
  return implementation not in ('tpu', 'gpu') or implementation == platform()


def _check_shapes(q, k, v, kv_start, kv_end) -> None:
  fits = q.ndim == k.ndim == 4 and k.shape == v.shape
  fits = fits and (q.shape[0], q.shape[3]) == (k.shape[0], k.shape[3])
  if not fits or q.shape[2] % k.shape[2]:
    raise ValueError(
      f'attention needs q [B, L, N, H] and k, v [B, S, K, H] with N a multiple of K, but got '
      f'{q.shape}, {k.shape} and {v.shape}'
    )
  if kv_start.shape != kv_end.shape or kv_start.shape not in (q.shape[:2], (*q.shape[:2], 2)):
    raise ValueError(
      f'attention of {q.shape[:2]} queries needs intervals of shape {q.shape[:2]} or '
      f'{(*q.shape[:2], 2)}, but got {kv_start.shape} and {kv_end.shape}'
    )


def _interval_first(edge, keys: int) -> jax.Array:
  """int32 [B, intervals, L], within 0..S."""
  edge = jnp.clip(jnp.asarray(edge, jnp.int32), 0, keys)
  return edge[:, None] if edge.ndim == 2 else edge.transpose(0, 2, 1)
