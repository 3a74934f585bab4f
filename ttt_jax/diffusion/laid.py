"""A document as it lies in a row: what is read, what is seen, what is predicted."""

from typing import NamedTuple

import numpy as np

from ttt_jax import chat, mask
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import corruption


class Laid(NamedTuple):
  """One document, ready to be packed.

  Attributes:
    inputs: int32 [m], tokens after masking.
    positions: int32 [m], position of each in the document.
    kv_start: int32 [m], or [m, 2] in two streams: first keys that it sees, counted from the
      first token of the document.
    kv_end: int32, as `kv_start`, the ends (exclusive) of those keys.
    targets: int32 [m], what each position must predict.
    weights: float32 [m], 0 where it is no target.
    noise: float32 [m], p for audio targets, 0 elsewhere.
    count: text targets plus audio tokens that could have been masked.
  """

  inputs: np.ndarray
  positions: np.ndarray
  kv_start: np.ndarray
  kv_end: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  noise: np.ndarray
  count: int


def one_stream(
  document: chat.Document,
  corrupted: corruption.Corrupted,
  mask_config: config_lib.Mask,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Laid:
  """The paper's layout: the corrupted document, which sees itself by the rule of the mask."""
  groups = mask.document_groups(document.tokens, document.spans, mask_config, vocabulary)
  ends = mask.group_ends(groups)
  places = np.arange(len(ends), dtype=np.int32)
  return Laid(
    corrupted.inputs,
    places,
    np.zeros_like(ends),
    ends,
    corrupted.targets,
    corrupted.weights,
    corrupted.noise,
    corrupted.count,
  )
