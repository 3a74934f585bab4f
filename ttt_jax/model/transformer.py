"""The decoder Transformer, in linen.

RMSNorm, rotary positions, grouped-query attention and SwiGLU: with the switches of
`config.Model` it is Qwen2, Qwen3 or Llama. Which keys a position sees comes with the batch,
as intervals, so that text is causal and audio spans are bidirectional in one pass.
Parameters carry logical axis names, which sharding.py maps to the mesh.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.model import cache as cache_lib
from ttt_jax.model import rotary
from ttt_jax.ops import axes as axes_lib
from ttt_jax.ops import dot, embedding
from ttt_jax.ops import product as product_lib
from ttt_jax.ops.attention import sharded

_SAVED = ('attention_out', 'attention_lse')  # as ops/attention names them
_policies = jax.checkpoint_policies
# What a layer keeps for its backward pass, by `config.remat`.
_POLICIES = {
  'full': _policies.nothing_saveable,
  'attention': _policies.save_only_these_names(*_SAVED),
  'gate': _policies.save_only_these_names(*_SAVED, 'mlp_gate'),
  'products': _policies.save_only_these_names(*_SAVED, 'product'),
}


def _weight(module: nn.Module, name: str, shape, axes, fan_in: int, gain: float = 1.0):
  init = nn.initializers.normal(gain * fan_in**-0.5)
  return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)


def _bias(module: nn.Module, name: str, shape, axes):
  init = nn.with_logical_partitioning(nn.initializers.zeros, axes)
  return module.param(name, init, shape, jnp.float32)


class RMSNorm(nn.Module):
  """Divides by the root mean square over the last axis, in float32, and scales."""

  epsilon: float
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.with_logical_partitioning(nn.initializers.ones, (self.axis,))
    scale = self.param('scale', init, (x.shape[-1],), jnp.float32)
    wide = x.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + self.epsilon)
    return (wide * scale).astype(x.dtype)


class Attention(nn.Module):
  """Grouped-query attention over intervals of keys."""

  config: config_lib.Model

  @nn.compact
  def __call__(self, x, positions, kv_start, kv_end, cache):
    c = self.config
    product = functools.partial(product_lib.product, reduce_dtype=c.reduce_dtype)

    def project(name: str, heads: int, axis: str) -> jax.Array:
      shape, axes = (c.width, heads, c.head_width), ('embed', axis, 'head')
      weight = _weight(self, name, shape, axes, c.width)
      out = product('BLD,DNH->BLNH', x, weight, axes)
      if c.qkv_bias:
        # Added in float32, as its gradient then is.
        out = (out + _bias(self, name + '_bias', shape[1:], (axis, 'head'))).astype(x.dtype)
      return out

    q, k = project('q', c.heads, 'heads'), project('k', c.kv_heads, 'kv_heads')
    v = project('v', c.kv_heads, 'kv_heads')
    if c.qk_norm:
      q = RMSNorm(c.norm_epsilon, 'head', name='q_norm')(q)
      k = RMSNorm(c.norm_epsilon, 'head', name='k_norm')(k)
    frequencies = rotary.frequencies(c)
    q, k = (rotary.rotate(x, positions, frequencies) for x in (q, k))
    # Parameters do not depend on it, and no mesh divides the one short row that they are
    # made with.
    how = {'implementation': 'dense' if self.is_initializing() else c.attention}
    if cache is None:
      out = sharded.interval_attention(q, k, v, kv_start, kv_end, **how)
    else:  # of documents that begin at 0
      out, cache = cache.attend(q, k, v, positions, kv_end, **how)
    out = nn.with_logical_constraint(out, ('batch', 'length', 'heads', 'head'))
    shape = (c.heads, c.head_width, c.width)
    gain = (2 * c.layers) ** -0.5
    axes = 'heads', 'head', 'embed'
    weight = _weight(self, 'out', shape, axes, c.heads * c.head_width, gain)
    return product('BLNH,NHD->BLD', out, weight, axes), cache


class FeedForward(nn.Module):
  """SwiGLU (arXiv 2002.05202)."""

  config: config_lib.Model

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    product = functools.partial(product_lib.product, reduce_dtype=c.reduce_dtype)
    up_shape, up_axes = (c.width, c.mlp_width), ('embed', 'mlp')
    gate = _weight(self, 'gate', up_shape, up_axes, c.width)
    up = _weight(self, 'up', up_shape, up_axes, c.width)
    gain = (2 * c.layers) ** -0.5
    down = _weight(self, 'down', up_shape[::-1], up_axes[::-1], c.mlp_width, gain)
    opened = checkpoint_name(product('BLD,DF->BLF', x, gate, up_axes), 'mlp_gate')
    hidden = nn.silu(opened) * product('BLD,DF->BLF', x, up, up_axes)
    hidden = nn.with_logical_constraint(hidden, ('batch', 'length', 'mlp'))
    return product('BLF,FD->BLD', hidden, down, up_axes[::-1])


class Block(nn.Module):
  """One layer: attention and feed-forward, each behind a norm and around a residual."""

  config: config_lib.Model

  @nn.compact
  def __call__(self, carry, positions, kv_start, kv_end):
    (x, cache), epsilon = carry, self.config.norm_epsilon
    x = nn.with_logical_constraint(x, ('batch', 'length', 'activation'))
    normed = RMSNorm(epsilon, name='attention_norm')(x)
    attention_layer = Attention(self.config, name='attention')
    seen, cache = attention_layer(normed, positions, kv_start, kv_end, cache)
    x += seen
    x += FeedForward(self.config, name='mlp')(RMSNorm(epsilon, name='mlp_norm')(x))
    return (x, cache), None


class Transformer(nn.Module):
  """The whole network.

  Attributes:
    config: shape and numerics.
    vocabulary_size: ids in use; the embedding has `config.padded` rows.
  """

  config: config_lib.Model
  vocabulary_size: int

  def setup(self):
    c = self.config
    rows, axes = c.padded(self.vocabulary_size), ('vocabulary', 'activation')
    self.embedding = _weight(self, 'embedding', (rows, c.width), axes, c.width)
    if not c.tied:
      self.head = _weight(self, 'head', (rows, c.width), axes, c.width)
    block = Block
    if c.remat != 'none':
      block = nn.remat(Block, prevent_cse=False, policy=_POLICIES[c.remat])
    self.layers = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=nn.broadcast,
      length=c.layers,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c)
    self.norm = RMSNorm(c.norm_epsilon)

  def hidden(self, inputs, positions, kv_start, kv_end) -> jax.Array:
    """Final hidden states.

    Args:
      inputs: int32 [B, L] token ids.
      positions: int32 [B, L] within each document.
      kv_start: int32 [B, L], the first key that each position sees; or [B, L, 2], of the two
        intervals of keys that positions of two streams see.
      kv_end: likewise, the end (exclusive) of those keys.

    Returns:
      [B, L, D] of `config.dtype`.
    """
    x = self._embed(inputs)
    (x, _), _ = self.layers((x, None), positions, kv_start, kv_end)
    return self.norm(x)

  def extend(self, inputs, positions, kv_end, cache) -> tuple[jax.Array, cache_lib.Cache]:
    """Final hidden states of tokens that go on from cached ones, in documents from 0 on.

    Args:
      inputs: int32 [B, W] token ids.
      positions: int32 [B, W], in the document and in the cache; from `cache.length` on it is
        padding, which is not written.
      kv_end: int32 [B, W], the end (exclusive) of the keys that each position sees.
      cache: keys and values of all that is seen and not among `inputs`.

    Returns:
      [B, W, D] of `config.dtype`, and the cache with these tokens in it.
    """
    x = self._embed(inputs)
    start = cache._replace(layer=jnp.zeros_like(cache.layer))
    (x, cache), _ = self.layers((x, start), positions, jnp.zeros_like(kv_end), kv_end)
    return self.norm(x), cache

  def _embed(self, inputs) -> jax.Array:
    c = self.config
    # As for attention: no mesh divides the one row that parameters are made with.
    axes = axes_lib.Axes() if self.is_initializing() else sharding.axes_of_table()
    return embedding.lookup(self.embedding, inputs, c.dtype, c.reduce_dtype, axes)

  def output_layer(self) -> jax.Array:
    """What hidden states are multiplied with, float32 [V, D]; V covers padding rows too."""
    return self.embedding if self.config.tied else self.head

  def unembed(self, hidden: jax.Array) -> jax.Array:
    """Float32 logits [..., V] of hidden states [..., D]."""
    layer = self.output_layer().astype(hidden.dtype)
    return dot.einsum('...D,VD->...V', hidden, layer, jnp.float32)

  def __call__(self, inputs, positions, kv_start, kv_end) -> jax.Array:
    """Float32 logits [B, L, V]; arguments as for `hidden`."""
    return self.unembed(self.hidden(inputs, positions, kv_start, kv_end))


def shapes(model: Transformer) -> Any:
  """Tree of the shapes and dtypes of its parameters; nothing is allocated."""
  ids = jnp.zeros((1, 2), jnp.int32)
  made = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids, ids + 1)
  return nn.unbox(made['params'])
