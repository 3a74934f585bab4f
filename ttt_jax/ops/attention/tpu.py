"""Attention by intervals as Pallas kernels for TPUs: forward, and two for the gradients.

Scores are made transposed, keys down and queries across: what belongs to a query (its
intervals, maximum, sum, log-sum-exp) is then a row that spreads over sublanes at no cost. A
step of the grid takes one block of queries of all the heads that share a head of keys, and
one block of keys from the walk of that block (`walk.py`), whose numbers are prefetched as
scalars; past the end of a walk the index of a block stays, so nothing more is fetched.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ttt_jax import errors
from ttt_jax.ops import dot
from ttt_jax.ops.attention import walk

LANES = 128
SCALARS = 2**19  # bytes of scalar memory that a walk may take, half of a v5e's
_LOW = -1e30
_LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class _Settings:
  """What is known when tracing.

  Attributes:
    kv_heads: heads of keys.
    group: query heads a head of keys.
    width: of a head.
    scale: of the scores.
    soft_cap: bound of the scores, or None.
    block_q: queries of a block.
    block_k: keys of a block.
    interpret: without a TPU.
  """

  kv_heads: int
  group: int
  width: int
  scale: float
  soft_cap: float | None
  block_q: int
  block_k: int
  interpret: bool


def default_blocks(group: int) -> tuple[int, int]:
  """Queries and keys of a block: a step holds at most 2,048 rows of queries, 16 MiB in all."""
  return (512 if group <= 4 else 256 if group <= 8 else 128), 512


def attention(q, k, v, start, end, soft_cap, blocks, interpret) -> jax.Array:
  """As `attention.interval_attention`, with intervals int32 [B, intervals, L].

  Where all queries of the heads that share keys fit in one block, as in decoding, they are
  folded into one head.

  Raises:
    ValueError: the blocks are no multiples of 128, or the walks exceed the scalar memory.
  """
  shape = q.shape
  batch, length, heads, width = shape
  keys, kv_heads = k.shape[1:3]
  group = heads // kv_heads
  block_q, block_k = blocks or default_blocks(group)
  fold = length * group <= block_q
  if fold:
    q = q.reshape(batch, length, kv_heads, group, width).swapaxes(2, 3)
    start, end = (jnp.repeat(edge, group, 2) for edge in (start, end))
    length, group = length * group, 1
  if (block_q % LANES or block_k % LANES) and not interpret:
    raise ValueError(f"blocks of attention 'tpu' must be multiples of {LANES}: {blocks}")
  block_q, block_k = (
    min(block, n + -n % LANES) for block, n in zip((block_q, block_k), (length, keys))
  )

  def heads_first(x, block):
    return walk.pad(x.swapaxes(1, 2), 2, block)

  q = heads_first(q.reshape(batch, length, -1, width), block_q)
  k, v = heads_first(k, block_k), heads_first(v, block_k)
  edges = walk.pad(jnp.concatenate([start, end], 1), 2, block_q, 'edge')
  settings = _Settings(
    kv_heads, group, width, width**-0.5, soft_cap, block_q, block_k, interpret
  )
  out = _attend(q, k, v, edges, settings).swapaxes(1, 2)[:, :length]
  if fold:
    out = out.reshape(batch, shape[1], -1, kv_heads, width).swapaxes(2, 3)
  return out.reshape(shape)


def _dot(a, b, contract: tuple[int, int]):
  precision = dot.precision(a.dtype)
  axes = (((contract[0],), (contract[1],)), ((), ()))
  return jax.lax.dot_general(
    a, b, axes, precision=precision, preferred_element_type=jnp.float32
  )


def _visible(edges, block, s: _Settings):
  """bool [keys, queries] of a block of keys."""
  place = block * s.block_k
  place += jax.lax.broadcasted_iota(jnp.int32, (s.block_k, s.block_q), 0)
  count = edges.shape[0] // 2
  sees = [(place >= edges[i : i + 1]) & (place < edges[count + i :][:1]) for i in range(count)]
  return functools.reduce(jnp.logical_or, sees)


def _clean_keys(visible, array):
  """Zeroes rows that no query of the block sees: they may be anything, and 0 * NaN spreads."""
  seen = jnp.max(visible.astype(jnp.float32), 1, keepdims=True) > 0
  return jnp.where(seen, array, jnp.zeros_like(array))


def _clean_queries(visible, *arrays):
  """Zeroes the rows of queries that see no key of the block."""
  sees = jnp.max(visible.astype(jnp.float32), 0, keepdims=True)
  sees = jnp.broadcast_to(sees, (LANES, sees.shape[1])).T[:, :1] > 0
  return [jnp.where(sees, x, jnp.zeros_like(x)) for x in arrays]


def _scores(keys, q, s: _Settings):
  """Scores times log2(e), float32 [keys, queries]; and the slope of the cap, or None."""
  scores = _dot(keys, q, (1, 1))
  if s.soft_cap is None:
    return scores * (s.scale * _LOG2_E), None
  bounded = jnp.tanh(scores * (s.scale / s.soft_cap))
  return bounded * (s.soft_cap * _LOG2_E), 1 - bounded * bounded


def _at_step(walks, block, step, body) -> None:
  """Runs `body(other block, masked)` where the walk of a block has this step."""
  mine = [walks[8 * block + i] for i in range(8)]
  other, full = walk.place(mine, step)
  active = step < mine[3] - mine[0] + mine[7] - mine[4]
  pl.when(active & full)(lambda: body(other, False))
  pl.when(active & jnp.logical_not(full))(lambda: body(other, True))


def _forward_kernel(walks, edges, q, k, v, out, log_sum, top, total, sums, *, s: _Settings):
  block = pl.program_id(0) * pl.num_programs(2) + pl.program_id(2)
  step = pl.program_id(3)

  @pl.when(step == 0)
  def _():
    top[...] = jnp.full_like(top, _LOW)
    total[...] = jnp.zeros_like(total)
    sums[...] = jnp.zeros_like(sums)

  def body(other, masked):
    keys, values = k[...], v[...]
    if masked:
      visible = _visible(edges[...], other, s)
      values = _clean_keys(visible, values)
    for head in range(s.group):
      row = slice(head, head + 1)
      scores, _ = _scores(keys, q[head], s)
      if masked:
        scores = jnp.where(visible, scores, _LOW)
      higher = jnp.maximum(top[row], jnp.max(scores, 0, keepdims=True))
      weights = jnp.exp2(scores - higher)
      if masked:
        weights = jnp.where(visible, weights, 0)
      decay = jnp.exp2(top[row] - higher)
      top[row] = higher
      total[row] = decay * total[row] + jnp.sum(weights, 0, keepdims=True)
      sums[head] = decay * sums[head] + _dot(values, weights.astype(values.dtype), (0, 0))

  _at_step(walks, block, step, body)

  @pl.when(step == pl.num_programs(3) - 1)
  def _():
    whole = total[...]
    whole = jnp.where(whole > 0, whole, 1)
    log_sum[...] = top[...] + jnp.log2(whole)
    for head in range(s.group):
      mean = sums[head] / whole[head : head + 1]
      out[head] = mean.T.astype(out.dtype)


def _d_q_kernel(walks, edges, log_sum, delta, q, k, v, gradient, d_q, sums, *, s: _Settings):
  block = pl.program_id(0) * pl.num_programs(2) + pl.program_id(2)
  step = pl.program_id(3)

  @pl.when(step == 0)
  def _():
    sums[...] = jnp.zeros_like(sums)

  def body(other, masked):
    keys, values = k[...], v[...]
    visible = None
    if masked:
      visible = _visible(edges[...], other, s)
      keys = _clean_keys(visible, keys)
    for head in range(s.group):
      of_query = q[head], gradient[head], log_sum[head : head + 1], delta[head : head + 1]
      _, d_scores = _d_scores(keys, values, *of_query, visible, s)
      sums[head] += _dot(keys, d_scores.astype(keys.dtype), (0, 0))

  _at_step(walks, block, step, body)

  @pl.when(step == pl.num_programs(3) - 1)
  def _():
    for head in range(s.group):
      d_q[head] = (sums[head] * s.scale).T.astype(d_q.dtype)


def _d_kv_kernel(
  walks, edges, log_sum, delta, q, k, v, gradient, d_k, d_v, sums_k, sums_v, *, s: _Settings
):
  own = pl.program_id(2)
  block = pl.program_id(0) * pl.num_programs(2) + own
  step = pl.program_id(3)

  @pl.when(step == 0)
  def _():
    sums_k[...] = jnp.zeros_like(sums_k)
    sums_v[...] = jnp.zeros_like(sums_v)

  def body(_, masked):
    keys, values = k[...], v[...]
    visible = _visible(edges[...], own, s) if masked else None
    for head in range(s.group):
      queries, upstream = q[head], gradient[head]
      if masked:
        queries, upstream = _clean_queries(visible, queries, upstream)
      of_query = queries, upstream, log_sum[head : head + 1], delta[head : head + 1]
      weights, d_scores = _d_scores(keys, values, *of_query, visible, s)
      sums_v[...] += _dot(weights.astype(upstream.dtype), upstream, (1, 0))
      sums_k[...] += _dot(d_scores.astype(queries.dtype), queries, (1, 0))

  _at_step(walks, block, step, body)

  @pl.when(step == pl.num_programs(3) - 1)
  def _():
    d_k[...] = (sums_k[...] * s.scale).astype(d_k.dtype)
    d_v[...] = sums_v[...].astype(d_v.dtype)


def _d_scores(keys, values, q, gradient, log_sum, delta, visible, s: _Settings):
  """Weights, and gradients of the scores (before their scale): float32 [keys, queries]."""
  scores, slope = _scores(keys, q, s)
  weights = jnp.exp2(scores - log_sum)
  d_scores = weights * (_dot(values, gradient, (1, 1)) - delta)
  d_scores = d_scores if slope is None else d_scores * slope
  if visible is not None:
    # Both, for what nobody sees and who sees nothing may be anything.
    weights, d_scores = (jnp.where(visible, x, 0) for x in (weights, d_scores))
  return weights, d_scores


def _call(kernel, s: _Settings, walks, inputs, outputs, scratch, products: int):
  """One kernel over the grid (rows, heads of keys, blocks, steps of the longest walk).

  Args:
    kernel: its function; `_d_kv_kernel` goes by blocks of keys, others by blocks of queries.
    s: settings.
    walks: int32 [B, blocks, 2, 4].
    inputs: by kind of block ('edges', 'row', 'query' or 'key'), pairs with an array.
    outputs: pairs of a kind and an array of that shape and dtype.
    scratch: shapes of float32.
    products: matrix products in a step, for the estimate of costs.

  Raises:
    UserError: the walks exceed the scalar memory.
  """
  batch, blocks = walks.shape[:2]
  if walks.size * 4 > SCALARS:
    raise errors.UserError(
      f"attention 'tpu' of {batch} rows by {blocks} blocks needs {walks.size * 4} bytes of "
      f'scalar memory, above {SCALARS}: choose larger blocks, or fewer rows a device, say by '
      'train.accumulate'
    )

  def own(b, i, t, walks):
    return i

  def other(b, i, t, walks):
    base = 8 * (b * blocks + i)
    return walk.place([walks[base + n] for n in range(8)], t)[0]

  query, key = (other, own) if kernel is _d_kv_kernel else (own, other)
  arrays = dict(inputs)
  specs = {
    'edges': (
      (None, arrays['edges'].shape[1], s.block_q),
      lambda b, h, *r: (b, 0, query(b, *r)),
    ),
    'row': ((None, None, s.group, s.block_q), lambda b, h, *r: (b, h, 0, query(b, *r))),
    'query': ((None, s.group, s.block_q, s.width), lambda b, h, *r: (b, h, query(b, *r), 0)),
    'key': ((None, None, s.block_k, s.width), lambda b, h, *r: (b, h, key(b, *r), 0)),
  }
  specs = {kind: pl.BlockSpec(*spec) for kind, spec in specs.items()}
  # As if half of all blocks were walked: what a causal mask costs.
  scores = arrays['query'].size * arrays['key'].shape[2] // (2 * s.width)
  moved = (math.prod(x.shape) * x.dtype.itemsize for _, x in (*inputs, *outputs))
  cost = pl.CostEstimate(
    flops=2 * products * scores * s.width, transcendentals=scores, bytes_accessed=sum(moved)
  )
  call = pl.pallas_call(
    functools.partial(kernel, s=s),
    grid_spec=pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=1,
      grid=(batch, s.kv_heads, blocks, jnp.maximum(walk.steps(walks).max(), 1)),
      in_specs=[specs[kind] for kind, _ in inputs],
      out_specs=[specs[kind] for kind, _ in outputs],
      scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
    ),
    out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for _, x in outputs],
    compiler_params=pltpu.CompilerParams(
      dimension_semantics=('parallel', 'parallel', 'parallel', 'arbitrary')
    ),
    cost_estimate=cost,
    interpret=s.interpret,
    name='interval' + kernel.__name__.removesuffix('_kernel'),
  )
  # Unlike the bare call, a jitted one is dropped where a remat saves its results.
  return jax.jit(call)(walks.reshape(-1), *(x for _, x in inputs))


def _matrix(edges, k, s: _Settings):
  start, end = jnp.split(edges, 2, 1)
  return walk.block_matrix(start, end, s.block_q, s.block_k, k.shape[2])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, edges, s):
  """Attention of [B, N, L, H] queries over [B, K, S, H] keys; edges [B, 2 * intervals, L]."""
  return _forward(q, k, v, edges, s)[0]


def _forward(q, k, v, edges, s):
  row = jax.ShapeDtypeStruct((q.shape[0], s.kv_heads, s.group, q.shape[2]), jnp.float32)
  out, log_sum = _call(
    _forward_kernel,
    s,
    walk.runs(*_matrix(edges, k, s)),
    [('edges', edges), ('query', q), ('key', k), ('key', v)],
    [('query', q), ('row', row)],
    [(s.group, s.block_q), (s.group, s.block_q), (s.group, s.width, s.block_q)],
    products=2,
  )
  out = checkpoint_name(out, 'attention_out')
  log_sum = checkpoint_name(log_sum, 'attention_lse')
  return out, (q, k, v, edges, out, log_sum)


def _backward(s, saved, gradient):
  q, k, v, edges, out, log_sum = saved
  delta = out.astype(jnp.float32) * gradient.astype(jnp.float32)
  delta = delta.sum(-1).reshape(log_sum.shape)
  inputs = [('edges', edges), ('row', log_sum), ('row', delta)]
  inputs += [('query', q), ('key', k), ('key', v), ('query', gradient)]
  touched, full = _matrix(edges, k, s)
  (d_q,) = _call(
    _d_q_kernel,
    s,
    walk.runs(touched, full),
    inputs,
    [('query', q)],
    [(s.group, s.width, s.block_q)],
    products=3,
  )
  d_k, d_v = _call(
    _d_kv_kernel,
    s,
    walk.runs(touched.swapaxes(1, 2), full.swapaxes(1, 2)),
    inputs,
    [('key', k), ('key', v)],
    [(s.block_k, s.width)] * 2,
    products=4,
  )
  return d_q, d_k, d_v, None


_attend.defvjp(_forward, _backward)
