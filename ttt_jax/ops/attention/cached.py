"""Attention of a few queries over a cache: it reads what there is, and not the room beyond."""

import jax
import jax.numpy as jnp

from ttt_jax.ops import dot

CHUNK = 512  # keys at a time; on a CPU those of a head stay in its cache


def attention(
  q: jax.Array, k: jax.Array, v: jax.Array, layer: jax.Array, kv_end: jax.Array
) -> jax.Array:
  """Softmax attention of each query over the first `kv_end` keys of its row.

  A loop over chunks of keys, as long as the row that sees most; no layer of the cache is ever
  copied. The softmax is that of arXiv 2205.14135, algorithm 1, in float32.

  Args:
    q: [B, L, N, H] queries.
    k: [layers, B, K, S, H] keys; head n of the queries uses head n // (N / K).
    v: [layers, B, K, S, H] values.
    layer: int32 [], the layer of `k` and `v` that is meant.
    kv_end: int32 [B, L], how many keys each query sees, at most S.

  Returns:
    [B, L, N, H], of `q`'s dtype; 0 for a query that sees none. What no query of a row sees has
    no effect, whatever it holds.
  """
  batch, length, heads, width = q.shape
  kv_heads, room = k.shape[2:4]
  # Queries that share a head of keys, side by side: [B, K, G * L, H].
  q = (q * width**-0.5).reshape(batch, length, kv_heads, -1, width)
  q = q.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, width)
  groups = heads // kv_heads
  chunk = min(CHUNK, room)
  last = kv_end.max(1)[:, None, None, None]

  def part(cache, first):
    size = (1, batch, kv_heads, chunk, width)
    return jax.lax.dynamic_slice(cache, (layer, 0, 0, first, 0), size)[0]

  def body(index, carry):
    top, total, out = carry
    first = jnp.minimum(index * chunk, room - chunk)
    key = first + jnp.arange(chunk)
    # The last chunk may begin within the one before it: what that has done is not seen again.
    fresh = key >= index * chunk
    seen = (key < kv_end[..., None]) & fresh
    scores = dot.matmul(q, part(k, first).swapaxes(-1, -2))
    shape = scores.shape
    scores = scores.reshape(batch, kv_heads, groups, length, chunk)
    scores = jnp.where(seen[:, None, None], scores, -jnp.inf).reshape(shape)
    now = jnp.maximum(top, scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - now)
    values = jnp.where((key < last[..., 0])[..., None], part(v, first), 0)
    new = dot.matmul(weights.astype(q.dtype), values)
    shrunk = jnp.exp(top - now)
    return now, total * shrunk + weights.sum(-1, keepdims=True), out * shrunk + new

  limits = jnp.finfo(jnp.float32)
  edge = jnp.full((*q.shape[:3], 1), limits.min)  # finite, as differences of it must be
  start = edge, jnp.zeros_like(edge), jnp.zeros(q.shape, jnp.float32)
  _, total, out = jax.lax.fori_loop(0, -(-kv_end.max() // chunk), body, start)
  out = (
    (out / jnp.maximum(total, limits.tiny))
    .astype(q.dtype)
    .reshape(batch, kv_heads, groups, length, width)
  )
  return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)
