"""Which tokens of a block are revealed at each step of its diffusion."""

import jax
import jax.numpy as jnp

from ttt_jax import config as config_lib


def choose(
  priority: jax.Array, masked: jax.Array, step: jax.Array, sampling: config_lib.Sampling
) -> jax.Array:
  """The masked tokens to reveal now.

  Without a threshold these are an equal share of the block, the foremost first. Steps beyond
  one a token would reveal nothing, so there are none. With one (Fast-dLLM, arXiv 2505.22618)
  they are all whose priority is over it, and the foremost in any case.

  One token a step in random order is the first-hitting sampler (arXiv 2409.02908): a network
  that is not told the time needs no times.

  Args:
    priority: float32 [B, K], with the model's own probabilities low-confidence remasking;
      of equal ones the first goes before.
    masked: bool [B, K].
    step: int32 [B], from 0.
    sampling: block size (K), steps and threshold.

  Returns:
    bool [B, K]; as many as there are where fewer than the share are masked.
  """
  size = sampling.block_size
  steps = min(sampling.steps_per_block, size)
  share = size * (step + 1) // steps - size * step // steps
  order = jnp.argsort(jnp.where(masked, -priority, jnp.inf), -1, stable=True)
  rank = jnp.argsort(order, -1)
  if sampling.threshold > 0:
    return masked & ((priority > sampling.threshold) | (rank == 0))
  return masked & (rank < share[:, None])
