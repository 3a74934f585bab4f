"""Every implementation of attention, held against the rule of the mask, made densely."""

import functools
import re

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax.ops import attention

# Each compiles once; hypothesis then draws documents and numbers.
CASES = {
  'dense': ('dense', None, 1, (4, 2), 'float32', None),
  'dense-two': ('dense', None, 2, (4, 2), 'float32', 3.0),
  'dense-bf16': ('dense', None, 1, (4, 2), 'bfloat16', None),
  'chunked': ('chunked', (8, 16), 1, (4, 2), 'float32', None),
  'chunked-two': ('chunked', (16, 8), 2, (2, 2), 'float32', 3.0),
  'chunked-bf16': ('chunked', None, 2, (3, 1), 'bfloat16', None),
  'tpu': ('tpu', (8, 16), 1, (4, 2), 'float32', None),
  'tpu-two': ('tpu', (16, 8), 2, (2, 2), 'float32', 3.0),
  'tpu-bf16': ('tpu', (32, 32), 2, (3, 1), 'bfloat16', None),
  'gpu': ('gpu', (16, 16), 1, (4, 2), 'float32', None),
  'gpu-two': ('gpu', (32, 16), 2, (2, 2), 'float32', 3.0),
  'gpu-bf16': ('gpu', None, 2, (3, 1), 'bfloat16', None),
}
LENGTH = 75  # no multiple of any block
WIDTH = 8


@functools.cache
def compiled(implementation, blocks, soft_cap):
  """Output and gradients."""

  @jax.jit
  def run(q, k, v, gradient, start, end):
    attend = functools.partial(
      attention.interval_attention,
      kv_start=start,
      kv_end=end,
      implementation=implementation,
      blocks=blocks,
      soft_cap=soft_cap,
      interpret=True,
    )
    out, pull = jax.vjp(attend, q, k, v)
    return out, *pull(gradient)

  return run


@functools.partial(jax.jit, static_argnums=5)
def by_the_rule(q, k, v, gradient, visible, soft_cap):
  q, k, v, gradient = (jnp.nan_to_num(x).astype(jnp.float32) for x in (q, k, v, gradient))
  out, pull = jax.vjp(lambda *x: oracle.attention(*x, visible, soft_cap), q, k, v)
  return out, *pull(gradient)


def agree(run, visible, count, heads, dtype, soft_cap, rng):
  start, end = oracle.intervals(visible, count)
  if count == 1:
    start, end = start[..., 0], end[..., 0]
  arrays = oracle.arrays(rng, visible, heads, WIDTH, dtype)
  got = run(*arrays, start, end)
  wanted = by_the_rule(*arrays, visible, soft_cap)
  tolerance = 1e-5 if dtype == 'float32' else 0.06
  for name, a, b in zip(('out', 'd_q', 'd_k', 'd_v'), got, wanted):
    assert a.dtype == dtype
    np.testing.assert_allclose(a, b, atol=tolerance, err_msg=name)
  out, d_q, d_k, d_v = (np.asarray(x, np.float32) for x in got)
  assert (out[~visible.any(2)] == 0).all() and (d_q[~visible.any(2)] == 0).all()
  assert (d_k[~visible.any(1)] == 0).all() and (d_v[~visible.any(1)] == 0).all()


@pytest.mark.parametrize('case', CASES)
@settings(max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_values_and_gradients_are_those_of_the_rule(case, seed):
  implementation, blocks, count, heads, dtype, soft_cap = CASES[case]
  rng = np.random.default_rng(seed)
  visible = np.stack([oracle.row(rng, LENGTH, count) for _ in range(2)])
  run = compiled(implementation, blocks, soft_cap)
  agree(run, visible, count, heads, dtype, soft_cap, rng)


@pytest.mark.parametrize('implementation', ['dense', 'chunked', 'tpu', 'gpu'])
@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_few_queries_against_a_long_cache(implementation, seed):
  """Rows of their own lengths; the cache is NaN behind them."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(0, 100, 3)
  visible = np.arange(100) < (lengths[:, None] - rng.integers(0, 3, (3, 2)))[..., None]
  blocks = {'dense': None, 'gpu': (16, 32)}.get(implementation, (16, 24))
  run = compiled(implementation, blocks, None)
  agree(run, visible, 1, (4, 2), 'float32', None, rng)


def test_intervals_need_no_order():
  """Any intervals will do: here of unrelated queries, with holes that no query sees."""
  rng = np.random.default_rng(3)
  start = rng.integers(0, LENGTH, (2, LENGTH))
  end = np.minimum(start + rng.choice([0, 1, 4, 30], start.shape), LENGTH)
  key = np.arange(LENGTH)
  visible = (key >= start[..., None]) & (key < end[..., None])
  for case in ('chunked', 'tpu', 'gpu'):
    implementation, blocks, count, heads, dtype, soft_cap = CASES[case]
    run = compiled(implementation, blocks, soft_cap)
    agree(run, visible, count, heads, dtype, soft_cap, rng)


def test_remat_can_save_what_the_backward_pass_needs():
  """Saving the output and the log-sum-exp by name spares a second forward kernel."""
  x = jnp.zeros((1, 20, 2, 8))
  edge = jnp.zeros((1, 20), jnp.int32)

  def forwards(implementation, policy):
    def layer(x, _):
      out = attention.interval_attention(
        x, x, x, edge, edge + 1, implementation=implementation, interpret=True
      )
      return x + jnp.sin(out), None

    def loss(x):
      return jax.lax.scan(jax.checkpoint(layer, policy=policy), x, None, length=2)[0].sum()

    return len(re.findall(r'name=interval_forward', str(jax.make_jaxpr(jax.grad(loss))(x))))

  save = jax.checkpoint_policies.save_only_these_names('attention_out', 'attention_lse')
  for implementation in ('tpu', 'gpu'):
    assert forwards(implementation, None) == 2
    assert forwards(implementation, save) == 1


def memory(implementation, length):
  """Bytes of temporaries of the output and its gradients."""
  x = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
  edge = jax.ShapeDtypeStruct((1, length), jnp.int32)

  def run(q, k, v, start, end):
    attend = functools.partial(
      attention.interval_attention, kv_start=start, kv_end=end, implementation=implementation
    )
    return jax.vjp(attend, q, k, v)[1](q)

  return jax.jit(run).lower(x, x, x, edge, edge).compile().memory_analysis().temp_size_in_bytes


def test_chunked_memory_is_linear():
  short, long = memory('chunked', 2048), memory('chunked', 8192)
  assert long < 4.2 * short
  assert long < 0.02 * memory('dense', 8192)


def test_auto_goes_by_platform_and_length(monkeypatch):
  assert attention.resolve('auto', 16) == 'dense'
  assert attention.resolve('auto', attention.CHUNKED_FROM) == 'chunked'
  for name, chosen in (('tpu', 'tpu'), ('cuda', 'gpu'), ('gpu', 'gpu')):
    monkeypatch.setattr(jax, 'default_backend', lambda name=name: name)
    assert attention.resolve('auto', 16) == chosen


@pytest.mark.parametrize(
  'change,message',
  [
    ({'implementation': 'magic'}, "'magic'; there are 'auto'"),
    ({'implementation': 'tpu'}, "'tpu' does not run on the platform 'cpu'; choose 'auto'"),
    ({'implementation': 'gpu'}, "'gpu' does not run on the platform 'cpu'; choose 'auto'"),
    ({'blocks': (8, 8)}, 'no blocks'),
    ({'implementation': 'gpu', 'blocks': (24, 16), 'interpret': True}, 'powers of two'),
    ({'kv_end': jnp.zeros((1, 3), jnp.int32)}, r'intervals of shape \(1, 2\) or \(1, 2, 2\)'),
    ({'k': jnp.zeros((1, 2, 2, 4))}, 'multiple of K'),
  ],
)
def test_what_cannot_be_done_is_refused(change, message):
  x, edge = jnp.zeros((1, 2, 3, 4)), jnp.zeros((1, 2), jnp.int32)
  values = {'q': x, 'k': x, 'v': x, 'kv_start': edge, 'kv_end': edge} | change
  with pytest.raises(ValueError, match=message):
    attention.interval_attention(**({'implementation': 'dense'} | values))
