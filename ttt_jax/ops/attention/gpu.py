"""Attention by intervals as Pallas kernels for GPUs (Triton; Ampere, Hopper and later).

Forward, and two for the gradients. A program takes one block of queries of one head (or, for
the gradients of keys and values, one block of keys and all the heads that share it) and goes
along its walk (`walk.py`): in each of the two runs the blocks before the full stretch, the
full ones without a mask, and those behind.

The semantics are tested in interpret mode, and the kernels were compiled for compute
capabilities 8.0 and 9.0 (docs/kernels.md). They have not run on a GPU: the sizes of the
blocks are untuned.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from ttt_jax import checks
from ttt_jax.ops import dot
from ttt_jax.ops.attention import walk

_LEAST = 16  # the least side of a product on tensor cores
_WIDEST = 256
_LOW = -1e30
_LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class _Settings:
  """What is known when tracing.

  Attributes:
    group: query heads a head of keys.
    scale: of the scores, by the width of a head before it was padded.
    soft_cap: bound of the scores, or None.
    block_q: queries of a block.
    block_k: keys of a block.
    interpret: without a GPU.
  """

  group: int
  scale: float
  soft_cap: float | None
  block_q: int
  block_k: int
  interpret: bool


def default_blocks(width: int, dtype) -> tuple[int, int]:
  """Queries and keys of a block: what fits Ampere's registers and smaller shared memory."""
  return (64, 64) if width <= 128 and jnp.dtype(dtype).itemsize <= 2 else (32, 32)


def attention(q, k, v, start, end, soft_cap, blocks, interpret) -> jax.Array:
  """As `attention.interval_attention`, with intervals int32 [B, intervals, L].

  Raises:
    ConfigError: the heads are too wide.
    ValueError: a block is no power of two from 16 on.
  """
  batch, length, heads, width = q.shape
  keys, kv_heads = k.shape[1:3]
  if width > _WIDEST:
    raise checks.ConfigError(
      f"attention 'gpu' takes heads of at most {_WIDEST}, not config.model.head_width={width}: "
      "choose config.model.attention='chunked'"
    )
  block_q, block_k = blocks or default_blocks(width, q.dtype)
  for block in (block_q, block_k):
    if block < _LEAST or block & (block - 1):
      raise ValueError(
        f"blocks of attention 'gpu' must be powers of two from {_LEAST}: {blocks}"
      )
  # Short rows take blocks as short as may be.
  block_q, block_k = (
    min(block, max(_LEAST, pl.next_power_of_2(n)))
    for block, n in zip((block_q, block_k), (length, keys))
  )

  def heads_first(x, block):
    x = walk.pad(x.swapaxes(1, 2), 2, block)
    return walk.pad(x, 3, max(_LEAST, pl.next_power_of_2(width)))

  settings = _Settings(heads // kv_heads, width**-0.5, soft_cap, block_q, block_k, interpret)
  edges = walk.pad(jnp.concatenate([start, end], 1), 2, block_q, 'edge')
  out = _attend(
    heads_first(q, block_q), heads_first(k, block_k), heads_first(v, block_k), edges, settings
  )
  return out[:, :, :length, :width].swapaxes(1, 2)


def _visible(edges, places):
  """bool [queries, keys], of edges 2 * intervals times [queries] and places [keys]."""
  count = len(edges) // 2
  sees = [
    (places >= edges[i][:, None]) & (places < edges[count + i][:, None]) for i in range(count)
  ]
  return functools.reduce(jnp.logical_or, sees)


def _load(array, visible, axis: int):
  """Rows of a reference, zeroed where nothing is visible along an axis of [queries, keys].

  They may be anything, and 0 * NaN would spread.
  """
  if visible is None:
    return array[...]
  used = jnp.max(visible.astype(jnp.float32), axis)[:, None] > 0
  return triton.load(array, mask=jnp.broadcast_to(used, array.shape), other=0.0)


def _scores(q, keys, s: _Settings):
  """Scores times log2(e), float32 [queries, keys]; and the slope of the cap, or None."""
  scores = dot.matmul(q, keys.T)
  if s.soft_cap is None:
    return scores * (s.scale * _LOG2_E), None
  # tanh(x) = 1 - 2 / (e^2x + 1), which Triton has no name for.
  twice = jnp.exp2(scores * (2 * _LOG2_E * s.scale / s.soft_cap))
  bounded = 1 - 2 / (twice + 1)
  return bounded * (s.soft_cap * _LOG2_E), 1 - bounded * bounded


def _go(walks, carry, body):
  """Carries `body(block, carry, masked)` along a walk, a reference [8]."""

  def run(number, carry):
    begin, full_begin, full_end, end = (walks[4 * number + i] for i in range(4))
    masked = functools.partial(body, masked=True)
    carry = jax.lax.fori_loop(begin, full_begin, masked, carry)
    carry = jax.lax.fori_loop(
      full_begin, full_end, functools.partial(body, masked=False), carry
    )
    return jax.lax.fori_loop(full_end, end, masked, carry)

  return jax.lax.fori_loop(0, 2, run, carry)


def _rows(edges, place=slice(None)):
  return [edges[i, place] for i in range(edges.shape[0])]


def _forward_kernel(walks, edges, q, k, v, out, log_sum, *, s: _Settings):
  queries, mine = q[...], _rows(edges)

  def body(block, carry, masked):
    top, total, sums = carry
    place = pl.ds(block * s.block_k, s.block_k)
    places = block * s.block_k + jnp.arange(s.block_k)
    visible = _visible(mine, places) if masked else None
    values = _load(v.at[place, :], visible, 0)
    scores, _ = _scores(queries, k[place, :], s)
    if masked:
      scores = jnp.where(visible, scores, _LOW)
    higher = jnp.maximum(top, scores.max(1))
    weights = jnp.exp2(scores - higher[:, None])
    decay = jnp.exp2(top - higher)
    sums = decay[:, None] * sums + dot.matmul(weights.astype(values.dtype), values)
    return higher, decay * total + weights.sum(1), sums

  # Above `_LOW`, so that weights of what is hidden vanish from the first block on.
  top = jnp.full((s.block_q,), _LOW / 2, jnp.float32)
  carry = top, jnp.zeros_like(top), jnp.zeros(queries.shape, jnp.float32)
  top, total, sums = _go(walks, carry, body)
  total = jnp.where(total > 0, total, 1.0)
  out[...] = (sums / total[:, None]).astype(out.dtype)
  log_sum[...] = top + jnp.log2(total)


def _d_scores(q, keys, values, gradient, log_sum, delta, visible, s: _Settings):
  """Weights, and gradients of the scores (before their scale): float32 [queries, keys]."""
  scores, slope = _scores(q, keys, s)
  weights = jnp.exp2(scores - log_sum[:, None])
  d_scores = weights * (dot.matmul(gradient, values.T) - delta[:, None])
  d_scores = d_scores if slope is None else d_scores * slope
  if visible is not None:
    # Both, for what nobody sees and who sees nothing may be anything.
    weights, d_scores = (jnp.where(visible, x, 0.0) for x in (weights, d_scores))
  return weights, d_scores


def _d_q_kernel(walks, edges, log_sum, delta, q, k, v, gradient, d_q, *, s: _Settings):
  queries, upstream, mine = q[...], gradient[...], _rows(edges)
  own_sum, own_delta = log_sum[...], delta[...]

  def body(block, total, masked):
    place = pl.ds(block * s.block_k, s.block_k)
    places = block * s.block_k + jnp.arange(s.block_k)
    visible = _visible(mine, places) if masked else None
    keys, values = _load(k.at[place, :], visible, 0), v[place, :]
    _, d_scores = _d_scores(queries, keys, values, upstream, own_sum, own_delta, visible, s)
    return total + dot.matmul(d_scores.astype(keys.dtype), keys)

  total = _go(walks, jnp.zeros(queries.shape, jnp.float32), body)
  d_q[...] = (total * s.scale).astype(d_q.dtype)


def _d_kv_kernel(walks, edges, log_sum, delta, q, k, v, gradient, d_k, d_v, *, s: _Settings):
  own_keys, own_values = k[...], v[...]
  places = pl.program_id(0) * s.block_k + jnp.arange(s.block_k)

  def of_head(head, carry):
    def body(block, carry, masked):
      place = pl.ds(block * s.block_q, s.block_q)
      visible = _visible(_rows(edges, place), places) if masked else None
      queries = _load(q.at[head, place, :], visible, 1)
      upstream = _load(gradient.at[head, place, :], visible, 1)
      sums = log_sum[head, place], delta[head, place]
      weights, d_scores = _d_scores(queries, own_keys, own_values, upstream, *sums, visible, s)
      d_keys = carry[0] + dot.matmul(d_scores.astype(queries.dtype).T, queries)
      return d_keys, carry[1] + dot.matmul(weights.astype(upstream.dtype).T, upstream)

    return _go(walks, carry, body)

  zero = jnp.zeros(own_keys.shape, jnp.float32)
  d_keys, d_values = jax.lax.fori_loop(0, s.group, of_head, (zero, zero))
  d_k[...] = (d_keys * s.scale).astype(d_k.dtype)
  d_v[...] = d_values.astype(d_v.dtype)


def _call(kernel, s: _Settings, walks, inputs, outputs):
  """One kernel over the grid (blocks, heads, rows).

  Args:
    kernel: its function; `_d_kv_kernel` takes blocks of keys and the whole of the queries
      of a group of heads, others blocks of queries and the whole of their head's keys.
    s: settings.
    walks: int32 [B, blocks, 2, 4].
    inputs: by kind of array ('edges', 'row', 'query' or 'key'), pairs with an array.
    outputs: pairs of a kind and an array of that shape and dtype.
  """
  batch, blocks = walks.shape[:2]
  arrays = dict(inputs)
  edges, q, k = arrays['edges'], arrays['query'], arrays['key']
  width, group = q.shape[3], s.group
  if kernel is _d_kv_kernel:
    heads = k.shape[1]
    specs = {
      'edges': ((None, *edges.shape[1:]), lambda i, h, b: (b, 0, 0)),
      'row': ((None, group, q.shape[2]), lambda i, h, b: (b, h, 0)),
      'query': ((None, group, *q.shape[2:]), lambda i, h, b: (b, h, 0, 0)),
      'key': ((None, None, s.block_k, width), lambda i, h, b: (b, h, i, 0)),
    }
  else:
    heads = q.shape[1]
    specs = {
      'edges': ((None, edges.shape[1], s.block_q), lambda i, h, b: (b, 0, i)),
      'row': ((None, None, s.block_q), lambda i, h, b: (b, h, i)),
      'query': ((None, None, s.block_q, width), lambda i, h, b: (b, h, i, 0)),
      'key': ((None, None, *k.shape[2:]), lambda i, h, b: (b, h // group, 0, 0)),
    }
  specs = {kind: pl.BlockSpec(*spec) for kind, spec in specs.items()}
  own_walk = pl.BlockSpec((None, None, 8), lambda i, h, b: (b, i, 0))
  call = pl.pallas_call(
    functools.partial(kernel, s=s),
    grid=(blocks, heads, batch),
    in_specs=[own_walk, *(specs[kind] for kind, _ in inputs)],
    out_specs=[specs[kind] for kind, _ in outputs],
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for _, x in outputs],
    compiler_params=triton.CompilerParams(num_warps=4 if width <= 64 else 8, num_stages=2),
    interpret=s.interpret,
    name='interval' + kernel.__name__.removesuffix('_kernel'),
  )
  # Unlike the bare call, a jitted one is dropped where a remat saves its results.
  return jax.jit(call)(walks.reshape(batch, blocks, 8), *(x for _, x in inputs))


def _matrix(edges, k, s: _Settings):
  start, end = jnp.split(edges, 2, 1)
  return walk.block_matrix(start, end, s.block_q, s.block_k, k.shape[2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, edges, s):
  """Attention of [B, N, L, H] queries over [B, K, S, H] keys; edges [B, 2 * intervals, L]."""
  return _forward(q, k, v, edges, s)[0]


def _forward(q, k, v, edges, s):
  out, log_sum = _call(
    _forward_kernel,
    s,
    walk.runs(*_matrix(edges, k, s)),
    [('edges', edges), ('query', q), ('key', k), ('key', v)],
    [('query', q), ('row', jax.ShapeDtypeStruct(q.shape[:3], jnp.float32))],
  )
  out = checkpoint_name(out, 'attention_out')
  log_sum = checkpoint_name(log_sum, 'attention_lse')
  return out, (q, k, v, edges, out, log_sum)


def _backward(s, saved, gradient):
  q, k, v, edges, out, log_sum = saved
  delta = (out.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(-1)
  inputs = [('edges', edges), ('row', log_sum), ('row', delta)]
  inputs += [('query', q), ('key', k), ('key', v), ('query', gradient)]
  touched, full = _matrix(edges, k, s)
  (d_q,) = _call(_d_q_kernel, s, walk.runs(touched, full), inputs, [('query', q)])
  columns = walk.runs(touched.swapaxes(1, 2), full.swapaxes(1, 2))
  d_k, d_v = _call(_d_kv_kernel, s, columns, inputs, [('key', k), ('key', v)])
  return d_q, d_k, d_v, None


_attend.defvjp(_forward, _backward)
