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
    kv_start: int32 [B, L], first key that a position sees.
    kv_end: int32 [B, L], end (exclusive) of the keys that it sees; an interval that is
      empty marks padding.
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


def empty(row_length: int) -> Batch:
  """A row of padding, without the axis of rows."""
  ints, floats = np.int32, np.float32
  kinds = (ints, ints, ints, ints, ints, floats, floats)
  return Batch(*(np.zeros(row_length, kind) for kind in kinds), normalizer=np.zeros((), floats))


def check(batch: Batch, vocabulary_size: int) -> None:
  """Raises ValueError if the arrays contradict each other; numpy arrays only."""
  shape = batch.inputs.shape
  for name, array in batch._asdict().items():
    expected = shape[:1] if name == 'normalizer' else shape
    if array.shape != expected:
      raise ValueError(f'batch.{name} has shape {array.shape}, not {expected}')
  length = shape[-1]
  if (batch.kv_start < 0).any() or (batch.kv_end > length).any():
    raise ValueError('an interval of keys leaves the row')
  index = np.arange(length)
  real = batch.kv_end > batch.kv_start
  if (real & ((batch.kv_start > index) | (batch.kv_end <= index))).any():
    raise ValueError('a position does not see itself')
  for name in ('inputs', 'targets'):
    ids = getattr(batch, name)
    if (ids < 0).any() or (ids >= vocabulary_size).any():
      raise ValueError(f'batch.{name} has ids outside [0, {vocabulary_size})')
  if (batch.weights < 0).any() or (batch.weights[~real] != 0).any():
    raise ValueError('weights must be 0 in padding and nowhere negative')
