"""New rows of the embedding, for tokens that a text model never saw."""

import numpy as np

_CHUNK = 8192  # rows that are widened to float32 at a time
_MIXED = 64  # old rows that make a new one


def draw_rows(table: np.ndarray, old: int, new: int, seed: list[int]) -> None:
  """Fills rows `[old, new)` of `table` with draws that have the old rows' mean and covariance.

  A row that looks like the others neither attracts the softmax nor repels it at first, and
  rows that differ can be told apart from the first step. A new row is

      mean + sum_j z_j (row_j - mean) / sqrt(m)

  over m old rows drawn with replacement and normal z: its covariance is theirs exactly, and
  nothing needs to be factorised, whatever dimensions they span.

  Args:
    table: [V, D], changed in place.
    old: rows that are drawn from; they are not touched.
    new: end (exclusive) of the rows that are drawn.
    seed: of the draws.
  """
  mean = np.zeros(table.shape[1])
  for start in range(0, old, _CHUNK):
    mean += table[start : min(start + _CHUNK, old)].astype(np.float32).sum(0, dtype=np.float64)
  mean = (mean / old).astype(np.float32)
  rng = np.random.default_rng(seed)
  step = _CHUNK // _MIXED
  for start in range(old, new, step):
    count = min(step, new - start)
    rows = table[rng.integers(old, size=(count, _MIXED))].astype(np.float32) - mean
    scales = rng.standard_normal((count, 1, _MIXED), np.float32) / np.float32(_MIXED**0.5)
    table[start : start + count] = mean + (scales @ rows)[:, 0]
