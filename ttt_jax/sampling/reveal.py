"""Which tokens of a block are revealed at each step of its diffusion."""

import jax
import jax.numpy as jnp


def choose(
  priority: jax.Array,
  masked: jax.Array,
  step: jax.Array,
  steps: jax.Array,
  threshold: jax.Array,
) -> jax.Array:
  """The masked tokens to reveal now.

  Without a threshold these are an equal share of the block, the foremost first. With one
  (Fast-dLLM, arXiv 2505.22618) they are all whose priority is over it, and the foremost in
  any case.

  One token a step in random order is the first-hitting sampler (arXiv 2409.02908): a network
  that is not told the time needs no times.

  Args:
    priority: float32 [B, K], with the model's own probabilities low-confidence remasking;
      of equal ones the first goes before.
    masked: bool [B, K].
    step: int32 [B], from 0.
    steps: int32 [B], of a block; K at most.
    threshold: float32 [B]; 0 is none.

  Returns:
    bool [B, K]; as many as there are where fewer than the share are masked.
  """
  size = priority.shape[1]
  share = size * (step + 1) // steps - size * step // steps
  # What is masked goes before what is not, even if its priority is no number: each step must
  # reveal some of it.
  order = jnp.lexsort((-priority, ~masked), -1)
  rank = jnp.argsort(order, -1)
  over = (priority > threshold[:, None]) | (rank == 0)
  return masked & jnp.where(threshold[:, None] > 0, over, rank < share[:, None])
