"""Attention by intervals: every query sees one contiguous range of keys."""

import jax
import jax.numpy as jnp


def interval_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  kv_start: jax.Array,
  kv_end: jax.Array,
  *,
  implementation: str,
) -> jax.Array:
  """Softmax attention of each query over the keys of its interval.

  Args:
    q: [B, L, N, H] queries.
    k: [B, S, K, H] keys; head n of the queries uses head n // (N / K).
    v: [B, S, K, H] values.
    kv_start: int32 [B, L], first key that a query sees.
    kv_end: int32 [B, L], end (exclusive) of the keys that it sees.
    implementation: 'dense' makes the [L, S] matrix of scores.

  Returns:
    [B, L, N, H], of `q`'s dtype; the softmax is taken in float32. A query whose interval
    is empty gives 0, and passes no gradient on.

  Raises:
    ValueError: there is no such implementation.
  """
  if implementation != 'dense':
    raise ValueError(f'unknown implementation of attention: {implementation!r}')
  batch, length, heads, width = q.shape
  kv_heads = k.shape[2]
  key = jnp.arange(k.shape[1])
  visible = (key >= kv_start[..., None]) & (key < kv_end[..., None])  # [B, L, S]
  # Padding may hold anything, NaN included, and 0 * NaN would spread it.
  sees, seen = (visible.any(axis)[..., None, None] for axis in (2, 1))
  q, k, v = jnp.where(sees, q, 0), jnp.where(seen, k, 0), jnp.where(seen, v, 0)
  # Heads first, and the queries that share a head of keys side by side.
  q = (q * width**-0.5).reshape(batch, length, kv_heads, -1, width)
  q = q.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, width)
  bias = jnp.where(visible, 0, jnp.finfo(jnp.float32).min)
  out = _dense(q, k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3), bias)
  out = out.reshape(batch, heads, length, width).transpose(0, 2, 1, 3)
  return jnp.where(sees, out, 0)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _transposed(x: jax.Array) -> jax.Array:
  return x.swapaxes(-1, -2)


def _scores(q, k, bias):
  """float32 [B, K, G * L, S], biased by [B, L, S]."""
  scores = _dot(q, _transposed(k))
  shape = scores.shape
  scores = scores.reshape(*shape[:2], -1, *bias.shape[1:]) + bias[:, None, None]
  return scores.reshape(shape)


@jax.custom_vjp
def _dense(q, k, v, bias):
  """Attention of [B, K, G * L, H] queries over [B, K, S, H] keys and values."""
  return _dense_forward(q, k, v, bias)[0]


def _dense_forward(q, k, v, bias):
  scores = _scores(q, k, bias)
  top = scores.max(-1, keepdims=True)
  weights = jnp.exp(scores - top)
  total = weights.sum(-1, keepdims=True)
  out = (_dot(weights.astype(v.dtype), v) / total).astype(v.dtype)
  return out, (q, k, v, bias, out, top + jnp.log(total))


def _dense_backward(saved, gradient):
  # As in flash attention (arXiv 2205.14135, algorithm 4): the weights are recomputed from
  # the log-sum-exp, and the softmax's gradient needs only the row sums of out * gradient.
  q, k, v, bias, out, log_sum = saved
  weights = jnp.exp(_scores(q, k, bias) - log_sum)
  delta = jnp.sum(out.astype(jnp.float32) * gradient, -1, keepdims=True)
  d_scores = (weights * (_dot(gradient, _transposed(v)) - delta)).astype(q.dtype)
  # Products with the small factor transposed: several times faster on a CPU.
  d_v = _transposed(_dot(_transposed(gradient), weights.astype(q.dtype)))
  d_k = _transposed(_dot(_transposed(q), d_scores))
  d_q = _dot(d_scores, k)
  return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), jnp.zeros_like(bias)


_dense.defvjp(_dense_forward, _dense_backward)
