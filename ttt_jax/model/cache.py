"""Keys and values of what was read before, for all layers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ttt_jax import config as config_lib


class Cache(NamedTuple):
  """Room for `S` tokens a row. It goes from layer to layer, each using its own part.

  Attributes:
    k: [layers, B, S, K, H] keys, positions applied.
    v: [layers, B, S, K, H] values.
    layer: int32 [], the layer whose turn it is.
  """

  k: jax.Array
  v: jax.Array
  layer: jax.Array

  @classmethod
  def empty(cls, config: config_lib.Model, batch: int, length: int) -> 'Cache':
    """Zeros, of the dtype of activations."""
    shape = (config.layers, batch, length, config.kv_heads, config.head_width)
    zeros = jnp.zeros(shape, config.dtype)
    return cls(zeros, jnp.zeros_like(zeros), jnp.int32(0))

  @property
  def batch(self) -> int:
    """Rows."""
    return self.k.shape[1]

  @property
  def length(self) -> int:
    """Tokens a row."""
    return self.k.shape[2]

  def extended(self, length: int) -> 'Cache':
    """With room for `length` tokens."""
    room = [(0, 0), (0, 0), (0, length - self.length), (0, 0), (0, 0)]
    return self._replace(k=jnp.pad(self.k, room), v=jnp.pad(self.v, room))

  def exchange(
    self, k: jax.Array, v: jax.Array, positions: jax.Array
  ) -> tuple[jax.Array, jax.Array, 'Cache']:
    """Writes a layer's new keys and values, and gives all that the layer has.

    Args:
      k: [B, W, K, H] keys.
      v: [B, W, K, H] values.
      positions: int32 [B, W], where to write them, each place once. What would lie at
        `length` or beyond is not written.

    Returns:
      [B, S, K, H] keys and values of the layer, and the cache for the next one.
    """
    rows = jnp.arange(k.shape[0])[:, None]

    def write(whole, new):
      at = whole.at[self.layer, rows, positions]
      return at.set(new.astype(whole.dtype), mode='drop', unique_indices=True)

    cache = Cache(write(self.k, k), write(self.v, v), self.layer + 1)
    return cache.k[self.layer], cache.v[self.layer], cache
