"""Masking schedules of absorbing diffusion in continuous time (MD4, arXiv 2406.04329).

`alpha(t)` is the probability that a token is still unmasked at time t: it falls from 1 at
t = 0 to 0 at t = 1. The bound on the likelihood weighs the cross-entropy of the masked
tokens at time t by w(t) = -alpha'(t) / (1 - alpha(t)).
"""

import numpy as np

from ttt_jax import config as config_lib


def alpha(objective: config_lib.Objective, t: np.ndarray) -> np.ndarray:
  """Probability that a token is unmasked at time `t` in [0, 1]; any shape, float64."""
  t = np.asarray(t, np.float64)
  if objective.schedule == 'linear':
    return 1 - t
  if objective.schedule == 'cosine':
    return 1 - np.cos(np.pi / 2 * (1 - t))
  return 1 - t**objective.power


def alpha_prime(objective: config_lib.Objective, t: np.ndarray) -> np.ndarray:
  """Derivative of `alpha` by `t`."""
  t = np.asarray(t, np.float64)
  if objective.schedule == 'linear':
    return -np.ones_like(t)
  if objective.schedule == 'cosine':
    return -np.pi / 2 * np.sin(np.pi / 2 * (1 - t))
  return -objective.power * t ** (objective.power - 1)


def time(objective: config_lib.Objective, number: np.ndarray) -> np.ndarray:
  """The time that a number in [0, 1) stands for: as far into `time_range`; any shape.

  A range short of [0, 1] is biased, and has less variance (BD3-LM, arXiv 2503.09573).
  """
  low, high = objective.time_range
  return low + (high - low) * np.asarray(number, np.float64)


def noise(objective: config_lib.Objective, t: np.ndarray) -> np.ndarray:
  """Probability p of masking a token at time `t`: 1 - alpha, kept above `epsilon`.

  p = (1 - epsilon) (1 - alpha(t)) + epsilon, as the authors keep it away from 0.
  """
  return (1 - objective.epsilon) * (1 - alpha(objective, t)) + objective.epsilon


def weight(objective: config_lib.Objective, t: np.ndarray) -> np.ndarray:
  """Weight of the cross-entropy at time `t`: -alpha'(t) / (1 - alpha(t)), by `noise`'s p.

  For the linear schedule this is 1 / p, the factor (1 - epsilon) apart, which is left out
  as the authors do.
  """
  return -alpha_prime(objective, t) / noise(objective, t)
