"""The batch: everything that the objective needs, decided by the pipeline."""

from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
  """Rows of packed documents. The train step draws nothing: it is all here.

  The loss is `sum(weights * cross_entropy(logits, targets)) / sum(normalizer)`.
  The class of a target says to which part of the loss it belongs.

  Attributes:
    inputs: int32 [B, L], token ids after masking.
    positions: int32 [B, L], position within the document.
    kv_start: int32 [B, L], first key that a position sees; [B, L, 2] in two streams, where
      it sees two intervals.
    kv_end: int32, as `kv_start`, ends (exclusive) of the keys that it sees; who sees none is
      padding.
    targets: int32 [B, L], what the position must predict.
    weights: float32 [B, L], how much that counts; 0 where it is no target.
    noise: float32 [B, L], probability with which an audio target was masked; 0 elsewhere.
    normalizer: float32 [B], what each row adds to the divisor of the loss.
  """

  inputs: np.ndarray
  positions: np.ndarray
  kv_start: np.ndarray
  kv_end: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  noise: np.ndarray
  normalizer: np.ndarray

  @property
  def visible(self) -> np.ndarray:
    """int32 [B, L], how many keys each position sees."""
    count = self.kv_end - self.kv_start
    return count if count.ndim == self.inputs.ndim else count.sum(-1)


def documents(row: Batch) -> list[tuple[int, int]]:
  """Start and end of each document of a row, whose arrays are [L]."""
  real = row.visible > 0
  first = row.kv_start.reshape(len(row.inputs), -1)[:, 0]  # all see their document's start
  starts = np.unique(first[real]).tolist()
  return list(zip(starts, [*starts[1:], int(real.sum())]))


def empty(row_length: int, streams: int = 1) -> Batch:
  """A row of padding, without the axis of rows; a position sees an interval a stream."""
  edges = (row_length,) if streams == 1 else (row_length, streams)
  ints = {name: np.zeros(row_length, np.int32) for name in ('inputs', 'positions', 'targets')}
  floats = {name: np.zeros(row_length, np.float32) for name in ('weights', 'noise')}
  seen = {name: np.zeros(edges, np.int32) for name in ('kv_start', 'kv_end')}
  return Batch(**ints, **floats, **seen, normalizer=np.zeros((), np.float32))


def check(batch: Batch, vocabulary_size: int) -> None:
  """Raises ValueError if the arrays contradict each other; numpy arrays only."""
  shape = batch.inputs.shape
  for name, array in batch._asdict().items():
    expected = shape[:1] if name == 'normalizer' else shape
    also = (*shape, 2) if name in ('kv_start', 'kv_end') else expected
    if array.shape not in (expected, also):
      raise ValueError(f'batch.{name} has shape {array.shape}, not {expected}')
  length = shape[-1]
  if (batch.kv_start < 0).any() or (batch.kv_end > length).any():
    raise ValueError('an interval of keys leaves the row')
  starts, ends = (edge.reshape(*shape, -1) for edge in (batch.kv_start, batch.kv_end))
  index = np.arange(length)[:, None]
  real = (ends > starts).any(-1)
  if (real & ~((starts <= index) & (index < ends)).any(-1)).any():
    raise ValueError('a position does not see itself')
  for name in ('inputs', 'targets'):
    ids = getattr(batch, name)
    if (ids < 0).any() or (ids >= vocabulary_size).any():
      raise ValueError(f'batch.{name} has ids outside [0, {vocabulary_size})')
  if (batch.weights < 0).any() or (batch.weights[~real] != 0).any():
    raise ValueError('weights must be 0 in padding and nowhere negative')
