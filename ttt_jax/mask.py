"""The hybrid attention mask: one rule, and in memory an interval of keys a position.

Give every position a document d, an order group o, counting up within the document, and
a stream s (0 clean, 1 noisy). Query q may see key k when

    d_q = d_k  and  ( s_k = 0 and (o_k < o_q  or (s_q = 0 and o_k = o_q))
                      or s_q = s_k = 1 and o_q = o_k )

The paper's mask (arXiv 2509.20072, section 3) is the case s = 0 with one group a text
token and one a span: causal for text, bidirectional inside audio spans. A group is
contiguous, so the keys that a position sees are the interval from the start of its
document to the end of its group: two int32 numbers, never an [L, L] array.
"""

import numpy as np

from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib


def order_groups(
  length: int,
  spans: np.ndarray,
  block_size: int | None = None,
  causal: np.ndarray | None = None,
) -> np.ndarray:
  """Order groups of one document.

  Args:
    length: number of positions.
    spans: int [spans, 2], start and end (exclusive) of each audio span.
    block_size: audio positions a group, counted from the start of a span; None makes one
      group of the whole span.
    causal: bool [spans], the spans in which every position is a group of its own (prompt
      audio, when it is to be read left to right).

  Returns:
    int32 [length], non-decreasing from 0.
  """
  begins = np.ones(length, bool)
  for index, (start, end) in enumerate(spans):
    if causal is not None and causal[index]:
      continue
    begins[start + 1 : end] = False
    if block_size is not None:
      begins[start:end:block_size] = True
  return (np.cumsum(begins) - 1).astype(np.int32)


def document_groups(
  tokens: np.ndarray,
  spans: np.ndarray,
  config: config_lib.Mask,
  vocabulary: vocabulary_lib.Vocabulary,
) -> np.ndarray:
  """Order groups of a document, whole or still growing, as the mask is configured.

  Args:
    tokens: int [n].
    spans: int [spans, 2], its audio spans.
    config: what an audio token sees.
    vocabulary: tells prompt spans, by their end token, from response spans.

  Returns:
    int32 [n].
  """
  causal = vocabulary.is_prompt(tokens, spans) if config.causal_prompt else None
  return order_groups(len(tokens), spans, config.group_size, causal)


def group_ends(groups: np.ndarray) -> np.ndarray:
  """End (exclusive) of each position's group: its `kv_end` within the document.

  Args:
    groups: int [length], non-decreasing.

  Returns:
    int32 [length].
  """
  return np.searchsorted(groups, groups, side='right').astype(np.int32)


def visible(
  documents: np.ndarray, groups: np.ndarray, streams: np.ndarray | None = None
) -> np.ndarray:
  """The rule itself, densely: for pictures and as the tests' oracle.

  Args:
    documents: int [L], the document of each position, negative for padding.
    groups: int [L], order groups.
    streams: int [L], 0 clean and 1 noisy; None means all clean.

  Returns:
    bool [L, L], entry [q, k] true when q may see k.
  """
  streams = np.zeros_like(groups) if streams is None else streams
  d_q, d_k = documents[:, None], documents[None]
  o_q, o_k = groups[:, None], groups[None]
  s_q, s_k = streams[:, None], streams[None]
  clean = (s_k == 0) & ((o_k < o_q) | ((s_q == 0) & (o_k == o_q)))
  noisy = (s_q == 1) & (s_k == 1) & (o_q == o_k)
  return (d_q == d_k) & (d_q >= 0) & (clean | noisy)
