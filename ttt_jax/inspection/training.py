"""Rows of a data set as training sees them: how full they are, and what they train."""

from typing import Any, NamedTuple

import numpy as np

from data_pipelines import records
from data_pipelines.stream import rows as rows_lib
from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax import vocabulary as vocabulary_lib

_MOST = 64  # rows of a batch that are looked at


def batch(
  source: records.Source, config: config_lib.Config, step: int
) -> tuple[int, list[batch_lib.Batch]]:
  """The number of the first row of a step's global batch, and its rows, `_MOST` at most.

  Raises:
    UserError: no record fits into a row, or the records are unsound.
  """
  first, count = step * config.data.batch_size, min(_MOST, config.data.batch_size)
  try:
    alone = config.data.alone(source.directory)
    rows = rows_lib.Rows([source], alone, config.mask, config.objective, config.seed)
    return first, [rows[first + i] for i in range(count)]
  except errors.UserError:
    raise
  except (IndexError, ValueError) as error:  # records that break the rules of a data set
    raise records.DataError(
      f'{source.directory}: no rows can be made of its records ({error})'
    ) from error


class Document(NamedTuple):
  """One document of a row.

  Attributes:
    start, end: its positions; `end` is exclusive.
    text_targets, audio_targets: positions that must predict.
    masked: mask tokens in its input.
    noise: the largest probability of masking; 0 if no audio is a target.
  """

  start: int
  end: int
  text_targets: int
  audio_targets: int
  masked: int
  noise: float


def documents(row: batch_lib.Batch, vocabulary: vocabulary_lib.Vocabulary) -> list[Document]:
  """The documents of a row, whose arrays are [L]."""
  audio = (row.weights > 0) & vocabulary.is_audio(row.targets)
  text = (row.weights > 0) & ~audio
  return [
    Document(
      start=start,
      end=end,
      text_targets=int(text[start:end].sum()),
      audio_targets=int(audio[start:end].sum()),
      masked=int((row.inputs[start:end] == vocabulary.mask).sum()),
      noise=float(row.noise[start:end].max()),
    )
    for start, end in batch_lib.documents(row)
  ]


def figures(
  rows: list[batch_lib.Batch], vocabulary: vocabulary_lib.Vocabulary
) -> dict[str, Any]:
  """Fill and targets of rows, whose arrays are [L]."""
  found = [documents(row, vocabulary) for row in rows]
  fills = [sum(d.end - d.start for d in row) / len(rows[0].inputs) for row in found]
  flat = [document for row in found for document in row]
  tokens = sum(d.end - d.start for d in flat)
  return {
    'rows': len(rows),
    'row_length': len(rows[0].inputs),
    'documents': len(flat),
    'fill': float(np.mean(fills)),
    'least_fill': min(fills),
    'text_targets': sum(d.text_targets for d in flat) / tokens,
    'audio_targets': sum(d.audio_targets for d in flat) / tokens,
    'masked': sum(d.masked for d in flat) / tokens,
    'trains_audio': sum(d.audio_targets > 0 for d in flat) / len(flat),
  }
