"""A packed row that can be checked by eye, and the vocabulary of its ids."""

import numpy as np

from ttt_jax import batch as batch_lib
from ttt_jax import mask
from ttt_jax import vocabulary as vocabulary_lib

VOCABULARY = vocabulary_lib.Vocabulary(
  size=18,
  audio_start=6,
  codebook_start=6,
  codebook_size=8,
  turn_start=1,
  turn_end=2,
  begin_audio=3,
  begin_last=4,
  end_prompt=14,
  end_inner=15,
  end_last=16,
  mask=17,
  tokenizer='none',
)


def packed() -> batch_lib.Batch:
  """Two documents: text and a masked response; a prompt span and text; then padding."""
  row = batch_lib.empty(16)
  row.inputs[:13] = [1, 5, 4, 17, 7, 17, 2, 1, 3, 8, 14, 5, 2]
  for start, end, spans in ((0, 7, [[3, 6]]), (7, 13, [[2, 4]])):
    row.kv_start[start:end] = start
    row.kv_end[start:end] = start + mask.group_ends(
      mask.order_groups(end - start, np.array(spans))
    )
  row.targets[[2, 3, 5, 10]] = [4, 9, 16, 5]
  row.weights[[2, 3, 5, 10]] = 1
  row.noise[[3, 5]] = 0.6
  return row
