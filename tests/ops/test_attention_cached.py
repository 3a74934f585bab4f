"""Attention over a cache, against attention by intervals of the keys that are there."""

from unittest import mock

import hypothesis
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from ttt_jax.ops import attention
from ttt_jax.ops.attention import cached


@hypothesis.settings(max_examples=15)
@hypothesis.given(
  sizes=st.tuples(*(st.integers(1, n) for n in (3, 5, 2, 3, 23))),
  chunk=st.integers(1, 8),
  seed=st.integers(0, 99),
)
def test_it_reads_what_there_is_and_nothing_else(sizes, chunk, seed):
  batch, length, kv_heads, group, room = sizes
  rng = np.random.default_rng(seed)
  q = rng.normal(size=(batch, length, kv_heads * group, 4)).astype(np.float32)
  k, v = rng.normal(size=(2, 3, batch, kv_heads, room, 4)).astype(np.float32)
  end = rng.integers(0, room + 1, (batch, length)).astype(np.int32)
  for row, last in enumerate(end.max(1)):
    k[:, row, :, last:], v[:, row, :, last:] = np.nan, np.nan
  with mock.patch.object(cached, 'CHUNK', chunk):
    found = cached.attention(*map(jnp.array, (q, k, v)), jnp.int32(1), jnp.array(end))
  here = (jnp.array(x[1].swapaxes(1, 2)) for x in (k, v))
  start = jnp.zeros_like(end)
  wanted = attention.interval_attention(q, *here, start, jnp.array(end), implementation='dense')
  np.testing.assert_allclose(found, wanted, atol=2e-6)
