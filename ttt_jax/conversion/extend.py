"""New rows of the embedding, for tokens that a text model never saw."""

import numpy as np

_CHUNK = 8192  # rows that are widened to float32 at a time
_JITTER = 1e-6  # of the mean variance: keeps the factor real where rows span fewer dimensions


def draw_rows(table: np.ndarray, old: int, new: int, seed: list[int]) -> None:
  """Fills rows `[old, new)` of `table` with draws from the normal distribution of the old ones.

  A row that looks like the others neither attracts the softmax nor repels it at first, and
  rows that differ can be told apart from the first step.

  Args:
    table: [V, D], changed in place.
    old: rows whose mean and covariance count; they are not touched.
    new: end (exclusive) of the rows that are drawn.
    seed: of the draws.
  """
  width = table.shape[1]
  mean, square = np.zeros(width), np.zeros((width, width))
  for start in range(0, old, _CHUNK):
    rows = table[start : min(start + _CHUNK, old)].astype(np.float32)
    mean += rows.sum(0, dtype=np.float64) / old
    square += (rows.T @ rows).astype(np.float64) / old
  covariance = square - np.outer(mean, mean)
  covariance += np.eye(width) * (_JITTER * np.trace(covariance) / width + 1e-30)
  factor = np.linalg.cholesky(covariance)
  rng = np.random.default_rng(seed)
  for start in range(old, new, _CHUNK):
    stop = min(start + _CHUNK, new)
    table[start:stop] = mean + rng.standard_normal((stop - start, width)) @ factor.T
