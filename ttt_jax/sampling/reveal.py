"""Which tokens of a block are revealed at each step of its diffusion."""

import numpy as np


def share(block_size: int, steps: int, step: int) -> int:
  """Tokens that step `step` (from 0) of `steps` reveals: the block in equal parts."""
  return block_size * (step + 1) // steps - block_size * step // steps


def most_confident(confidence: np.ndarray, masked: np.ndarray, count: int) -> np.ndarray:
  """The `count` masked positions of which the model is surest (low-confidence remasking).

  Args:
    confidence: float [n].
    masked: bool [n].
    count: how many to reveal; all masked ones if there are fewer.

  Returns:
    int [<= count], positions.
  """
  order = np.argsort(np.where(masked, -confidence, np.inf), kind='stable')
  return order[: min(count, int(masked.sum()))]
