"""Rows of documents drawn by chance, and attention over them by the rule of the mask."""

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax import mask


def row(rng: np.random.Generator, length: int, streams: int) -> np.ndarray:
  """bool [length, length], by the rule: packed documents, with padding between and behind.

  With two streams some groups of a document have noisy copies, which follow it.
  """
  documents, groups, stream = np.full(length, -1), np.zeros(length, int), np.zeros(length, int)
  at, number = 0, 0
  while at < length:
    sizes = rng.choice([1, 1, 2, 5, 9], rng.integers(1, 9))
    clean = np.repeat(np.arange(len(sizes)), sizes)
    copied = np.flatnonzero(rng.random(len(sizes)) < (0.5 if streams == 2 else 0))
    noisy = [clean[clean == group] for group in copied]
    order = np.concatenate([clean, *noisy])[: length - at]
    part = slice(at, at + len(order))
    documents[part], groups[part] = number, order
    stream[part] = np.arange(len(order)) >= len(clean)
    at, number = at + len(order) + rng.choice([0, 0, 3, 20]), number + 1
  return mask.visible(documents, groups, stream)


def intervals(visible: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """int32 [..., count] twice: the runs of visible keys, empty where there are fewer."""
  wide = np.pad(visible.astype(int), [(0, 0)] * (visible.ndim - 1) + [(1, 1)])
  change = np.diff(wide, axis=-1)
  start, end = np.zeros((2, *visible.shape[:-1], count), np.int32)
  for place in np.ndindex(visible.shape[:-1]):
    starts, ends = (np.flatnonzero(change[place] == sign) for sign in (1, -1))
    assert len(starts) <= count
    start[place][: len(starts)], end[place][: len(ends)] = starts, ends
  return start, end


def attention(q, k, v, visible, soft_cap=None):
  """Float32 attention with a dense mask; visible bool [B, L, S]."""
  q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
  k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], 2) for x in (k, v))
  scores = jnp.einsum('BLNH,BSNH->BNLS', q, k) / q.shape[3] ** 0.5
  if soft_cap is not None:
    scores = soft_cap * jnp.tanh(scores / soft_cap)
  weights = jax.nn.softmax(jnp.where(visible[:, None], scores, -1e30))
  weights = jnp.where(visible[:, None], weights, 0)
  return jnp.einsum('BNLS,BSNH->BLNH', weights, v)


def arrays(rng: np.random.Generator, visible: np.ndarray, heads, width: int, dtype):
  """Queries, keys, values and a gradient of the output: NaN wherever nothing is visible."""
  batch, length, keys = visible.shape
  sees, seen = visible.any(2)[..., None, None], visible.any(1)[..., None, None]
  out = []
  for count, n, used in zip(
    (length, keys, keys, length),
    (heads[0], heads[1], heads[1], heads[0]),
    (sees, seen, seen, sees),
  ):
    x = rng.normal(size=(batch, count, n, width))
    out.append(jnp.asarray(np.where(used, x, np.nan), dtype))
  return out
