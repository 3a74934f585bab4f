"""Whisper's encoder made causal by blocks, then pooled to tokens (arXiv 2412.02612, 2.1).

Parameters have the names and layouts of the released files, but for the layers, which are
stacked: `layers.7.fc1.weight` is row 7 of `layers.fc1.weight`. They carry logical axis names
as those of the Transformer do.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ttt_jax.codecs.glm4voice import features
from ttt_jax.codecs.glm4voice import shape as shape_lib

_EPSILON = 1e-5  # of layer norms
_KERNEL = 3  # of both convolutions
_NORMAL = nn.initializers.normal(0.02)


def _param(module: nn.Module, name: str, shape, axes, init=_NORMAL):
  return module.param(name, nn.with_logical_partitioning(init, axes), shape, jnp.float32)


class Linear(nn.Module):
  """`[..., in]` -> `[..., out]`; its weight is `[out, in]`."""

  shape: tuple[int, int]
  axes: tuple[str, str]
  bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = jnp.einsum('...I,OI->...O', x, _param(self, 'weight', self.shape, self.axes))
    if not self.bias:
      return x
    return x + _param(self, 'bias', self.shape[:1], self.axes[:1], nn.initializers.zeros)


class Norm(nn.Module):
  """Layer norm over the last axis."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width, axes = x.shape[-1:], ('embed',)
    x -= jnp.mean(x, -1, keepdims=True)
    x *= jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + _EPSILON)
    x *= _param(self, 'weight', width, axes, nn.initializers.ones)
    return x + _param(self, 'bias', width, axes, nn.initializers.zeros)


class CausalConvolution(nn.Module):
  """`[B, L, in]` -> `[B, ceil(L / stride), out]`; each sees itself and what came before."""

  width: int
  stride: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = self.width, x.shape[-1], _KERNEL
    weight = _param(self, 'weight', shape, ('embed', None, None))
    layouts = ('NWC', 'OIW', 'NWC')
    padding = [(_KERNEL - 1, 0)]
    x = jax.lax.conv_general_dilated(
      x, weight, (self.stride,), padding, dimension_numbers=layouts
    )
    return x + _param(self, 'bias', shape[:1], ('embed',), nn.initializers.zeros)


class Attention(nn.Module):
  """Multi-head attention; position i sees the keys before `ends[b, i]`."""

  shape: shape_lib.Shape

  @nn.compact
  def __call__(self, x: jax.Array, ends: jax.Array) -> jax.Array:
    width, heads = self.shape.d_model, self.shape.encoder_attention_heads

    def project(name: str, bias: bool = True) -> jax.Array:
      out = Linear((width, width), ('heads', 'embed'), bias, name=name)(x)
      return out.reshape(*x.shape[:2], heads, width // heads)

    q, k, v = project('q_proj'), project('k_proj', bias=False), project('v_proj')
    scores = jnp.einsum('BLNH,BSNH->BNLS', q * (width // heads) ** -0.5, k)
    visible = jnp.arange(x.shape[1]) < ends[:, None, :, None]
    # Not infinite, since a row of padding sees nothing at all.
    weights = jax.nn.softmax(jnp.where(visible, scores, jnp.finfo(x.dtype).min))
    out = jnp.einsum('BNLS,BSNH->BLNH', weights, v).reshape(x.shape)
    return Linear((width, width), ('embed', 'heads'), name='out_proj')(out)


class Layer(nn.Module):
  """Attention and feed-forward, each behind a norm and around a residual."""

  shape: shape_lib.Shape

  @nn.compact
  def __call__(self, x: jax.Array, ends: jax.Array):
    wide = self.shape.encoder_ffn_dim, self.shape.d_model
    x = nn.with_logical_constraint(x, ('batch', 'length', 'activation'))
    x += Attention(self.shape, name='self_attn')(Norm(name='self_attn_layer_norm')(x), ends)
    hidden = Linear(wide, ('mlp', 'embed'), name='fc1')(Norm(name='final_layer_norm')(x))
    hidden = nn.with_logical_constraint(hidden, ('batch', 'length', 'mlp'))
    x += Linear(wide[::-1], ('embed', 'mlp'), name='fc2')(nn.gelu(hidden, approximate=False))
    return x, None


class Table(nn.Module):
  """Rows of vectors."""

  shape: tuple[int, int]
  axes: tuple[str | None, str]

  @nn.compact
  def __call__(self) -> jax.Array:
    return _param(self, 'weight', self.shape, self.axes)


class Encoder(nn.Module):
  """Log-mels to tokens.

  Attributes:
    shape: of the network.
  """

  shape: shape_lib.Shape

  def setup(self):
    s = self.shape
    self.conv1 = CausalConvolution(s.d_model, 1)
    self.conv2 = CausalConvolution(s.d_model, shape_lib.STRIDE)
    self.embed_positions = Table((s.max_source_positions, s.d_model), (None, 'embed'))
    self.layers = nn.scan(
      Layer,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=nn.broadcast,
      length=s.quantize_position,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(s)
    self.codebook = Table((s.quantize_vocab_size, s.d_model), ('vocabulary', 'embed'))

  def hidden(self, mels: jax.Array, frames: jax.Array) -> jax.Array:
    """Pooled hidden states, before they become codes.

    What is behind a row's frames changes no token of it, but for the frames that fill its last
    token: its mean is over them too.

    Args:
      mels: float32 [B, frames, NUM_MELS], as `features.log_mel` makes them; frames divides into
        tokens, and they are one window at most.
      frames: int32 [B], how many of them are sound.

    Returns:
      float32 [B, T, D], of which a row's first ceil(frames / frames a token) mean something.
    """
    s = self.shape
    x = nn.gelu(self.conv1(mels), approximate=False)
    x = nn.gelu(self.conv2(x), approximate=False)
    where = jnp.arange(x.shape[1])
    x += self.embed_positions()[: x.shape[1]]
    # Those at or before i, and those of i's block: all before the block's end.
    block = s.quantize_causal_block_size
    sound = -(-frames // shape_lib.STRIDE)
    ends = jnp.minimum((where // block + 1) * block, sound[:, None])
    x, _ = self.layers(x, ends)
    return x.reshape(len(x), -1, s.pooling_kernel_size, s.d_model).mean(2)

  def __call__(self, mels: jax.Array, frames: jax.Array) -> jax.Array:
    """The nearest codes, int32 [B, T]; arguments as for `hidden`."""
    # The square of a hidden state is the same for all codes, and left out.
    codes = self.codebook()
    products = jnp.einsum('BTD,VD->BTV', self.hidden(mels, frames), codes)
    return jnp.argmin(jnp.sum(codes**2, -1) - 2 * products, -1).astype(jnp.int32)

  def parameters(self):
    """Shapes and dtypes of all parameters, boxed with their axes; nothing is allocated."""
    frames = shape_lib.STRIDE * self.shape.pooling_kernel_size
    mels = jnp.zeros((1, frames, features.NUM_MELS))
    key = jax.random.key(0)
    return jax.eval_shape(self.init, key, mels, jnp.zeros(1, jnp.int32))['params']
