import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import make_config

from ttt_jax.training import guard

BAD = [(np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0), (1.0, np.inf), (np.nan, np.nan)]


def gradients(steps):
  rng = np.random.default_rng(0)
  return [{'a': rng.normal(size=(3, 2)), 'b': rng.normal(size=4)} for _ in range(steps)]


def taken(rule, steps):
  """Parameters and state after steps of (gradient, loss, norm); of an unguarded rule too."""
  params = {'a': jnp.ones((3, 2)), 'b': -jnp.ones(4)}
  state = rule.init(params)
  update = jax.jit(optax.with_extra_args_support(rule).update)
  for gradient, loss, norm in steps:
    told = {'loss': jnp.float32(loss), 'norm': jnp.float32(norm)}
    gradient = jax.tree.map(jnp.float32, gradient)
    updates, state = update(gradient, state, params, **told)
    params = optax.apply_updates(params, updates)
  return params, state


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def config(**changes):
  return make_config(**{f'guard__{key}': value for key, value in changes.items()}).guard


@pytest.mark.parametrize('loss,norm', BAD)
def test_a_skipped_update_leaves_everything_as_if_its_batch_had_not_been(loss, norm):
  rule = optax.adamw(optax.linear_schedule(0.1, 0.01, 5))
  good = [(gradient, 1.0, 1.0) for gradient in gradients(4)]
  nothing = jax.tree.map(lambda g: np.full_like(g, np.nan), good[0][0])
  wanted, inner = taken(rule, good)
  bad = [(nothing, loss, norm)]
  params, state = taken(guard.guarded(rule, config()), good[:2] + bad + good[2:] + bad)
  same((params, state.inner), (wanted, inner))
  assert guard.verdict(state).skipped and guard.verdict(state).total == 2 and state.taken == 4


@pytest.mark.parametrize('kind', ['loss', 'gradient'])
def test_spikes_are_measured_by_the_mean_of_the_steps_that_were_taken(kind):
  def values(value):
    return (value, 1.0) if kind == 'loss' else (1.0, value)

  rule = guard.guarded(optax.sgd(0.1), config(**{f'{kind}_spike': 3.0}))
  each = gradients(1)[0]
  first = [(each, *values(2.0))] * 99  # too few to know what is usual
  _, state = taken(rule, first + [(each, *values(50.0))])
  assert state.skipped == 0
  mean = (99 * 2 + 50) / 100
  _, state = taken(rule, first + [(each, *values(50.0)), (each, *values(3.001 * mean))])
  assert state.skipped == 1 and state.last
  np.testing.assert_allclose(state.loss if kind == 'loss' else state.norm, mean, rtol=1e-5)
  _, state = taken(rule, first + [(each, *values(50.0)), (each, *values(2.999 * mean))])
  assert state.skipped == 0
  off = guard.guarded(optax.sgd(0.1), config())
  assert taken(off, first + [(each, *values(2.0)), (each, *values(1e9))])[1].skipped == 0


def test_debt_is_made_good_by_steps():
  rule, each = guard.guarded(optax.sgd(0.1), config(refill=4)), gradients(1)[0]
  _, state = taken(rule, [(each, np.nan, 1.0)] * 3)
  assert state.debt == 2.5  # 1, then 3/4 + 1, then 6/4 + 1
  _, state = taken(rule, [(each, np.nan, 1.0)] * 3 + [(each, 1.0, 1.0)] * 6)
  assert state.debt == 1.0
  _, state = taken(rule, [(each, np.nan, 1.0)] + [(each, 1.0, 1.0)] * 9)
  assert state.debt == 0 and state.skipped == 1
