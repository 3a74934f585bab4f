"""Keeps a bad batch from doing harm: updates that are no numbers, or spikes, are skipped.

It is a part of the optimizer, so that what it knows is saved and restored with its state, and
a run that goes on skips what the undisturbed one would.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ttt_jax import config as config_lib
from ttt_jax import errors

_SPAN = 100  # steps: over so many the means are taken, and so many come before the first spike


class DivergedError(errors.UserError):
  """More updates had to be skipped than the settings allow."""

  exit_code = errors.FINAL  # the next start would come to the same


class State(NamedTuple):
  """State of the guard, and of the optimizer that it guards.

  Attributes:
    loss: float32 [], running mean over the steps that were taken.
    norm: float32 [], likewise of the gradient's norm.
    taken: int32 [], how many were taken.
    skipped: int32 [], how many were not.
    debt: float32 [], skips less those that steps since have made good.
    last: bool [], whether the last one was skipped.
    inner: state of the optimizer.
  """

  loss: jax.Array
  norm: jax.Array
  taken: jax.Array
  skipped: jax.Array
  debt: jax.Array
  last: jax.Array
  inner: Any


def guarded(
  rule: optax.GradientTransformation, config: config_lib.Guard
) -> optax.GradientTransformationExtraArgs:
  """`rule`, but for updates that would do harm, which are zero and leave its state as it is.

  Its `update` needs the `loss` and the `norm` of the gradient, float32 []. An update is
  skipped where one of them is no finite number, or, with `config.loss_spike` or
  `config.gradient_spike` above 0, more than so many times its running mean.
  """

  def init(params):
    zero, count = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
    return State(zero, zero, count, count, zero, jnp.zeros((), bool), rule.init(params))

  def update(gradient, state, params, *, loss, norm):
    sound = jnp.isfinite(loss) & jnp.isfinite(norm)
    for value, mean, factor in (
      (loss, state.loss, config.loss_spike),
      (norm, state.norm, config.gradient_spike),
    ):
      if factor:
        sound &= (state.taken < _SPAN) | (value <= factor * mean)
    updates, inner = rule.update(gradient, state.inner, params)
    share = 1 / jnp.minimum(state.taken + 1, _SPAN)
    now = State(
      state.loss + share * (loss - state.loss),
      state.norm + share * (norm - state.norm),
      state.taken + 1,
      state.skipped,
      state.debt,
      state.last,
      inner,
    )
    kept = jax.tree.map(lambda new, old: jnp.where(sound, new, old), now, state)
    skipped = ~sound
    debt = jnp.maximum(state.debt - 1 / config.refill, 0) + skipped
    kept = kept._replace(skipped=state.skipped + skipped, debt=debt, last=skipped)
    return jax.tree.map(lambda u: jnp.where(sound, u, 0), updates), kept

  return optax.GradientTransformationExtraArgs(init, update)


class Verdict(NamedTuple):
  """What the guard said of a step, and has said before.

  Attributes:
    skipped: bool [], whether the update was skipped.
    total: int32 [], how many were, in this run.
    debt: float32 [], skips less those that steps since have made good.
  """

  skipped: jax.Array
  total: jax.Array
  debt: jax.Array


def verdict(state: State) -> Verdict:
  """What the guard said last."""
  return Verdict(state.last, state.skipped, state.debt)
