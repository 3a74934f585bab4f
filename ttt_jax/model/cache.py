"""Keys and values of what was read before, for all layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ttt_jax import config as config_lib
from ttt_jax.ops.attention import cached, sharded


class Cache(NamedTuple):
  """Room for `S` tokens a row. It goes from layer to layer, each using its own part.

  Attributes:
    k: [layers, B, K, S, H] keys, positions applied; as products with them want them.
    v: [layers, B, K, S, H] values.
    layer: int32 [], the layer whose turn it is.
  """

  k: jax.Array
  v: jax.Array
  layer: jax.Array

  @classmethod
  def empty(cls, config: config_lib.Model, batch: int, length: int) -> 'Cache':
    """Zeros, of the dtype of activations."""
    shape = (config.layers, batch, config.kv_heads, length, config.head_width)
    zeros = jnp.zeros(shape, config.dtype)
    return cls(zeros, jnp.zeros_like(zeros), jnp.int32(0))

  @property
  def batch(self) -> int:
    """Rows."""
    return self.k.shape[1]

  @property
  def length(self) -> int:
    """Tokens a row."""
    return self.k.shape[3]

  def extended(self, length: int) -> 'Cache':
    """With room for `length` tokens."""
    room = [(0, 0), (0, 0), (0, 0), (0, length - self.length), (0, 0)]
    return self._replace(k=jnp.pad(self.k, room), v=jnp.pad(self.v, room))

  def attend(
    self,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    kv_end: jax.Array,
    **how,
  ) -> tuple[jax.Array, 'Cache']:
    """Writes a layer's new keys and values, and attends to all that the layer has.

    Args:
      q: [B, W, N, H] queries.
      k: [B, W, K, H] keys.
      v: [B, W, K, H] values.
      positions: int32 [B, W], where to write them, each place once. What would lie at
        `length` or beyond is not written.
      kv_end: int32 [B, W], the end (exclusive) of the keys that each query sees.
      **how: what `interval_attention` wants to know.

    Returns:
      [B, W, N, H], and the cache for the next layer.
    """
    rows = jnp.arange(k.shape[0])[:, None]

    def write(whole, new):
      at = whole.at[self.layer, rows, :, positions]
      return at.set(new.astype(whole.dtype), mode='drop', unique_indices=True)

    cache = Cache(write(self.k, k), write(self.v, v), self.layer + 1)
    if q.shape[1] < self.length:
      return cached.attention(q, cache.k, cache.v, self.layer, kv_end), cache
    # A whole prompt at once.
    k, v = (x[self.layer].swapaxes(1, 2) for x in (cache.k, cache.v))
    start = jnp.zeros_like(kv_end)
    return sharded.interval_attention(q, k, v, start, kv_end, **how), cache
