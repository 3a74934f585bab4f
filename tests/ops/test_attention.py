import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax import mask
from ttt_jax.ops import attention


def by_the_rule(q, k, v, visible):
  """Attention with a dense mask, by jax's own function; visible [B, L, S]."""
  out = jax.nn.dot_product_attention(q, k, v, mask=visible[:, None])
  return jnp.where(visible.any(-1)[..., None, None], out, 0)


def packed_row(rng, length):
  """Documents with spans, and padding at the end: intervals, and the rule's matrix."""
  documents, groups = np.full(length, -1), np.zeros(length, int)
  start, end, at, number = np.zeros((2, length), int)[0], np.zeros(length, int), 0, 0
  while at < length - 4:
    size = int(rng.integers(2, length // 2))
    size = min(size, length - 2 - at)
    first = int(rng.integers(0, size))
    spans = np.array([[first, rng.integers(first + 1, size + 1)]])
    order = mask.order_groups(size, spans)
    documents[at : at + size], groups[at : at + size] = number, order
    start[at : at + size], end[at : at + size] = at, at + mask.group_ends(order)
    at, number = at + size, number + 1
  return start, end, mask.visible(documents, groups)


@settings(deadline=None, max_examples=12)
@given(
  seed=st.integers(0, 10**6),
  length=st.sampled_from([8, 13, 24]),
  heads=st.sampled_from([(2, 2), (4, 2)]),
)
def test_values_and_gradients_are_those_of_the_rule(seed, length, heads):
  rng = np.random.default_rng(seed)
  rows = [packed_row(rng, length) for _ in range(2)]
  start, end, visible = (jnp.array(np.stack(part)) for part in zip(*rows))
  n, kv = heads
  q = jnp.array(rng.normal(size=(2, length, n, 4)), jnp.float32)
  k, v = (jnp.array(rng.normal(size=(2, length, kv, 4)), jnp.float32) for _ in range(2))
  upstream = jnp.array(rng.normal(size=q.shape), jnp.float32)

  def ours(q, k, v):
    return attention.interval_attention(q, k, v, start, end, implementation='dense')

  np.testing.assert_allclose(ours(q, k, v), by_the_rule(q, k, v, visible), atol=2e-6)
  got, wanted = (
    jax.grad(lambda *x, f=f: jnp.sum(f(*x) * upstream), (0, 1, 2))(q, k, v)
    for f in (ours, lambda q, k, v: by_the_rule(q, k, v, visible))
  )
  for a, b in zip(got, wanted):
    np.testing.assert_allclose(a, b, atol=5e-6)


def test_nothing_leaks_out_of_padding_not_even_nan():
  rng = np.random.default_rng(0)
  start, end = np.zeros((1, 6), int), np.array([[1, 2, 3, 4, 0, 0]])
  arrays = [rng.normal(size=(1, 6, 2, 4)).astype(np.float32) for _ in range(3)]
  for array in arrays:
    array[:, 4:] = np.nan

  def total(q, k, v):
    out = attention.interval_attention(q, k, v, start, end, implementation='dense')
    return jnp.sum(out**2), out

  gradients, out = jax.grad(total, (0, 1, 2), has_aux=True)(*arrays)
  assert (np.asarray(out[:, 4:]) == 0).all()
  for gradient in gradients:
    assert np.isfinite(gradient).all() and (np.asarray(gradient[:, 4:]) == 0).all()


def test_unknown_implementations_are_refused():
  x = jnp.zeros((1, 2, 1, 2))
  with pytest.raises(ValueError, match='magic'):
    attention.interval_attention(
      x, x, x, jnp.zeros((1, 2), int), jnp.ones((1, 2), int), implementation='magic'
    )
