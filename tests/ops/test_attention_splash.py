"""A second opinion: jax's splash attention, told of our intervals at run time."""

import functools

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as info

from ttt_jax.ops import attention
from ttt_jax.ops.attention import walk

BLOCK = 128


def splash_attention(q, k, v, start, end, documents):
  """q [N, L, H], k and v [K, L, H], intervals and documents int32 [L].

  Its kernel takes a function of a query's number and a key's, beside segments. The query's
  number need not be its place: with kv_end - 1 in its stead, 'at least' is our interval.
  """
  length = q.shape[1]
  matrix, _ = walk.block_matrix(start[None, None], end[None, None], BLOCK, BLOCK, length)

  def masks(touched, axis):
    index = jnp.broadcast_to(jnp.arange(length // BLOCK), touched.shape)
    index = index if axis == 1 else index.T
    low = jnp.where(touched, index, length).min(axis, keepdims=True)
    high = jnp.where(touched, index, 0).max(axis, keepdims=True)
    return info.MaskInfo(
      data_next=jnp.clip(index, low, high)[None].astype(jnp.int32),
      mask_next=None,
      block_mask=touched[None].astype(jnp.int32),
      partial_mask_blocks=None,
      q_sequence=end - 1,
    )

  names = ['q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute', 'q_dq', 'kv_dq']
  kernel = splash.SplashAttentionKernel(
    masks(matrix[0], 1),
    masks(matrix[0], 1),
    masks(matrix[0], 0),
    block_sizes=splash.BlockSizes(**{f'block_{name}': BLOCK for name in names}),
    is_mqa=False,
    save_residuals=False,
    mask_value=splash.DEFAULT_MASK_VALUE,
    attn_logits_soft_cap=None,
    residual_checkpoint_name=None,
    mask_function=lambda query, key: query >= key,
    interpret=True,
  )
  segments = splash.SegmentIds(documents, documents)
  return kernel(q * q.shape[2] ** -0.5, k, v, segment_ids=segments)


def test_splash_attention_agrees():
  rng = np.random.default_rng(0)
  length = 2 * BLOCK
  visible = oracle.row(rng, length, 1)
  np.fill_diagonal(visible, True)  # splash attention has no queries without keys
  start, end = (edge[:, 0] for edge in oracle.intervals(visible, 1))
  q, k, v, gradient = oracle.arrays(rng, visible[None], (2, 1), 128, jnp.float32)
  # Intervals of one document begin at one place, those of padding each at its own.
  theirs = functools.partial(splash_attention, start=start, end=end, documents=start)

  def ours(q, k, v):
    return attention.interval_attention(
      q,
      k,
      v,
      start[None],
      end[None],
      implementation='tpu',
      blocks=(BLOCK, BLOCK),
      interpret=True,
    )

  def heads_first(x):
    return x[0].swapaxes(0, 1)

  out, pull = jax.vjp(jax.jit(ours), q, k, v)
  other, pull_other = jax.vjp(jax.jit(theirs), *map(heads_first, (q, k, v)))
  for a, b in zip((out, *pull(gradient)), (other, *pull_other(heads_first(gradient)))):
    np.testing.assert_allclose(heads_first(a), b, atol=2e-5)
