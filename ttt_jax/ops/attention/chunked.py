"""Attention by chunks in plain JAX: memory linear in the length, on any platform.

Flash attention (arXiv 2205.14135): a chunk of queries walks the chunks of keys that it sees,
with a running maximum and sum for its softmax; the backward pass walks the same way,
recomputes the weights from the log-sum-exp, and adds to the gradients of keys and values in
place.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ttt_jax.ops import dot
from ttt_jax.ops.attention import walk

BLOCKS = (128, 256)  # queries and keys of a chunk
_LOW = -1e30


class _Chunks(NamedTuple):
  """Chunks of queries, all rows' behind one another: C of them, of Q queries.

  Attributes:
    start: int32 [C, intervals, Q].
    end: int32 [C, intervals, Q].
    walks: int32 [C, 8], the chunks of keys to walk, within the row's.
    offset: int32 [C], the first chunk of keys of the row.
  """

  start: jax.Array
  end: jax.Array
  walks: jax.Array
  offset: jax.Array


def attention(q, k, v, start, end, soft_cap: float | None, blocks) -> jax.Array:
  """As `attention.interval_attention`, with intervals int32 [B, intervals, L]."""
  batch, length, _, width = q.shape
  keys, kv_heads = k.shape[1:3]
  size_q, size_k = (min(size, n) for size, n in zip(blocks or BLOCKS, (length, keys)))
  start, end = (walk.pad(edge, 2, size_q, 'edge') for edge in (start, end))
  count_q, count_k = start.shape[2] // size_q, -(-keys // size_k)
  walks = walk.runs(*walk.block_matrix(start, end, size_q, size_k, count_k * size_k))

  def by_chunk(edge):
    edge = edge.reshape(batch, -1, count_q, size_q).swapaxes(1, 2)
    return edge.reshape(batch * count_q, -1, size_q)

  offset = jnp.repeat(jnp.arange(batch) * count_k, count_q)
  chunks = _Chunks(by_chunk(start), by_chunk(end), walks.reshape(-1, 8), offset)
  # Heads first, and the queries that share a head of keys side by side.
  q = walk.pad(q * width**-0.5, 1, size_q)
  q = q.reshape(batch * count_q, size_q, kv_heads, -1, width)
  q = q.transpose(0, 2, 3, 1, 4).reshape(batch * count_q, kv_heads, -1, width)

  def heads_first(x):
    x = walk.pad(x, 1, size_k).reshape(batch * count_k, size_k, kv_heads, width)
    return x.transpose(0, 2, 1, 3)

  out = _attend(q, heads_first(k), heads_first(v), chunks, soft_cap)
  out = out.reshape(batch, count_q, kv_heads, -1, size_q, width).transpose(0, 1, 4, 2, 3, 5)
  return out.reshape(batch, count_q * size_q, -1, width)[:, :length]


def _transposed(x: jax.Array) -> jax.Array:
  return x.swapaxes(-1, -2)


def _meet(q, k, v, chunk: _Chunks, step, soft_cap):
  """A chunk of queries [K, G * Q, H] meets the chunk of keys at a step of its walk.

  Returns:
    The index of that chunk, its keys and values [K, Y, H], cleaned of what nobody sees; the
    scores float32 [K, G * Q, Y], `_LOW` where hidden; and the slope of the cap, or None.
  """
  block, _ = walk.place(chunk.walks, step)
  index = chunk.offset + block
  keys, values = k[index], v[index]
  place = block * keys.shape[1] + jnp.arange(keys.shape[1])
  visible = (place >= chunk.start[..., None]) & (place < chunk.end[..., None])
  visible = visible.any(0)  # [Q, Y]
  seen = visible.any(0)[:, None]
  keys, values = jnp.where(seen, keys, 0), jnp.where(seen, values, 0)
  scores, slope = dot.matmul(q, _transposed(keys)), None
  if soft_cap is not None:
    bounded = jnp.tanh(scores / soft_cap)
    scores, slope = soft_cap * bounded, 1 - bounded**2
  by_head = scores.reshape(keys.shape[0], -1, *visible.shape)
  scores = jnp.where(visible, by_head, _LOW).reshape(scores.shape)
  return index, keys, values, scores, slope


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, chunks, soft_cap):
  """Attention of C chunks of queries [C, K, G * Q, H] over chunks of keys [., K, Y, H]."""
  return _forward(q, k, v, chunks, soft_cap)[0]


def _forward(q, k, v, chunks, soft_cap):
  def one(_, part):
    q, chunk = part

    def step(number, carry):
      top, total, sums = carry
      _, _, values, scores, _ = _meet(q, k, v, chunk, number, soft_cap)
      higher = jnp.maximum(top, scores.max(-1, keepdims=True))
      weights = jnp.exp(scores - higher)
      decay = jnp.exp(top - higher)
      total = decay * total + weights.sum(-1, keepdims=True)
      return higher, total, decay * sums + dot.matmul(weights.astype(values.dtype), values)

    # Above `_LOW`, so that weights of what is hidden vanish from the first chunk on.
    top = jnp.full((*q.shape[:-1], 1), _LOW / 2)
    carry = top, jnp.zeros_like(top), jnp.zeros(q.shape, jnp.float32)
    steps = walk.steps(chunk.walks.reshape(2, 4))
    top, total, sums = jax.lax.fori_loop(0, steps, step, carry)
    total = jnp.where(total > 0, total, 1)
    return None, ((sums / total).astype(q.dtype), top + jnp.log(total))

  _, (out, log_sum) = jax.lax.scan(one, None, (q, chunks))
  out = checkpoint_name(out, 'attention_out')
  log_sum = checkpoint_name(log_sum, 'attention_lse')
  return out, (q, k, v, chunks, out, log_sum)


def _backward(soft_cap, saved, gradient):
  q, k, v, chunks, out, log_sum = saved
  delta = jnp.sum(out.astype(jnp.float32) * gradient, -1, keepdims=True)

  def one(carry, part):
    q, chunk, gradient, log_sum, delta = part

    def step(number, carry):
      d_q, d_k, d_v = carry
      index, keys, values, scores, slope = _meet(q, k, v, chunk, number, soft_cap)
      weights = jnp.exp(scores - log_sum)
      d_scores = weights * (dot.matmul(gradient, _transposed(values)) - delta)
      d_scores = (d_scores if slope is None else d_scores * slope).astype(q.dtype)
      # Products with the small factor transposed: several times faster on a CPU.
      add_v = _transposed(dot.matmul(_transposed(gradient), weights.astype(q.dtype)))
      add_k = _transposed(dot.matmul(_transposed(q), d_scores))
      return (
        d_q + dot.matmul(d_scores, keys),
        d_k.at[index].add(add_k),
        d_v.at[index].add(add_v),
      )

    d_q = jnp.zeros(q.shape, jnp.float32)
    steps = walk.steps(chunk.walks.reshape(2, 4))
    d_q, *carry = jax.lax.fori_loop(0, steps, step, (d_q, *carry))
    return carry, d_q.astype(q.dtype)

  carry = [jnp.zeros(x.shape, jnp.float32) for x in (k, v)]
  parts = q, chunks, gradient, log_sum, delta
  (d_k, d_v), d_q = jax.lax.scan(one, carry, parts)
  return d_q, d_k.astype(k.dtype), d_v.astype(v.dtype), None


_attend.defvjp(_forward, _backward)
