"""Two streams: the clean document, and behind it noisy copies of what the model must say.

In the paper's layout (arXiv 2509.20072, section 3) text and later audio see masked audio in
training and clean audio in decoding; BANOM and PPM mend that for a part of the documents. Here
every clean token sees clean tokens alone, and each noisy group, a response span or a block of
one, sees the clean document before it and itself: what decoding gives it. The document grows
by its response audio. BD3-LM (arXiv 2503.09573) trains text in such
blocks.

A block is trained as it is decoded, from a block's length of masks: behind the end of its span
it goes on with ends, as far as it reaches. They fall away in decoding, as all behind the first
end does.
"""

from typing import NamedTuple

import numpy as np

from ttt_jax import chat, mask
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import corruption, schedule
from ttt_jax.diffusion.laid import Laid

_STRIDE = 2**0.5 - 1  # of times from group to group; with the golden ratio, of documents


class Copies(NamedTuple):
  """Noisy copies of the response spans of a document, before they are masked.

  A group is a span or a block of one. Arrays are [c], of the copies' tokens, or [g], of the
  groups; the copies of a span lie one behind the other.

  Attributes:
    tokens: int32 [c], clean.
    positions: int32 [c], of each token's twin in the document, or of where it would be.
    group: int32 [c], the number of each token's group, from 0.
    starts: int32 [g], where the twin of the group begins.
    sizes: int32 [g], tokens of the group.
    index: int32 [g], the place of the group's twin among the document's groups of audio.
    copy: int32 [g], which of the copies the group is of.
  """

  tokens: np.ndarray
  positions: np.ndarray
  group: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray
  index: np.ndarray
  copy: np.ndarray


def copied(size: int, ended: bool, block: int | None) -> int:
  """Tokens of a noisy copy of a span of `size` tokens, of which an end is one if `ended`."""
  return -(-size // block) * block if block and ended else size


def copied_lengths(
  document: chat.Document, block: int | None, vocabulary: vocabulary_lib.Vocabulary
) -> tuple[int, int]:
  """Tokens of one noisy copy of all response spans of a document, and of the last of them."""
  spans = document.spans[document.responses]
  sizes = [
    copied(int(end - start), bool(vocabulary.is_end(document.tokens[end - 1])), block)
    for start, end in spans
  ]
  return sum(sizes), sizes[-1] if sizes else 0


def copy(
  document: chat.Document,
  block: int | None,
  number: int,
  vocabulary: vocabulary_lib.Vocabulary,
  padded: bool = True,
) -> Copies:
  """Copies of each response span.

  Args:
    document: clean.
    block: tokens of a group; None makes one of the whole span.
    number: of copies.
    vocabulary: tells spans that have their end.
    padded: whether these fill their last block with ends.
  """
  starts, sizes, lasts, index, copies = [], [], [], [], []
  seen = 0
  for start, end in document.spans[document.responses].tolist():
    ended = padded and bool(vocabulary.is_end(document.tokens[end - 1]))
    size = copied(end - start, ended, block)
    begins = list(range(start, start + size, block or size))
    for which in range(number):
      starts += begins
      sizes += [min(block or size, start + size - begin) for begin in begins]
      lasts += [end - 1] * len(begins)
      index += range(seen, seen + len(begins))
      copies += [which] * len(begins)
    seen += len(begins)
  starts, sizes, lasts, index, copies = (
    np.array(part, np.int32) for part in (starts, sizes, lasts, index, copies)
  )
  group = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
  own = np.cumsum(sizes) - sizes  # where each group begins among the copies
  positions = starts[group] + np.arange(len(group), dtype=np.int32) - own[group]
  tokens = document.tokens[np.minimum(positions, lasts[group])]
  return Copies(tokens, positions.astype(np.int32), group, starts, sizes, index, copies)


def times(time: float, copies: Copies, number: int) -> np.ndarray:
  """A number in [0, 1) for the time of each group, float64 [g].

  Groups that follow each other get far times, and the copies of one group times that are
  evenly apart, so that both cover [0, 1] better than independent draws.
  """
  return (time + copies.index * _STRIDE + copies.copy / number) % 1


def corrupt(
  document: chat.Document,
  draws: corruption.Draws,
  mask_config: config_lib.Mask,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Laid:
  """Copies what the document answers, and masks the copies.

  Args:
    document: clean, and cut as planned.
    draws: the document's time, one number for each token of the copies, and whether the
      condition is dropped.
    mask_config: what a group is.
    objective: schedule, number of copies, normalization.
    vocabulary: gives the mask token and the classes.
  """
  copies = copy(document, mask_config.group_size, objective.copies, vocabulary)
  t = schedule.time(objective, times(draws.time, copies, objective.copies))
  p = schedule.noise(objective, t)[copies.group]
  weights = schedule.weight(objective, t)[copies.group]
  groups = mask.document_groups(document.tokens, document.spans, mask_config, vocabulary)
  if draws.dropped:  # which changes no group: what ends a prompt span cannot be seen then
    document = corruption.without_condition(document, vocabulary)
  masked = draws.uniforms < p
  return lay(document, groups, copies, masked, p, weights, objective, vocabulary)


def lay(
  document: chat.Document,
  groups: np.ndarray,
  copies: Copies,
  masked: np.ndarray,
  p: np.ndarray,
  weights: np.ndarray,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Laid:
  """The document and its copies, of whose tokens those at `masked` are masked.

  Args:
    document: the clean stream.
    groups: int [n], its order groups.
    copies: the noisy one.
    masked: bool [c].
    p: float [c], the probability with which each was masked.
    weights: float [c], of those that are masked, before they are normalized.
    objective: the number of copies, and how weights are normalized.
    vocabulary: gives the mask token and the classes.
  """
  size, nothing = len(document.tokens), np.zeros(len(document.tokens), bool)
  clean = corruption.with_targets(document, nothing, nothing, 0.0, 0.0, objective, vocabulary)
  ends = np.cumsum(copies.sizes) + size  # of the groups, behind the clean stream
  none = np.zeros(size, np.int32)
  divisor = objective.copies
  if objective.normalization == 'document':
    divisor = max(1, len(masked))

  def both(first, second, dtype):
    return np.concatenate([first, second]).astype(dtype)

  def pairs(clean, before, own):
    first = both(clean, before[copies.group], np.int32)
    return np.stack([first, both(none, own[copies.group], np.int32)], -1)

  return Laid(
    inputs=both(clean.inputs, np.where(masked, vocabulary.mask, copies.tokens), np.int32),
    positions=both(np.arange(size), copies.positions, np.int32),
    kv_start=pairs(none, np.zeros_like(copies.starts), ends - copies.sizes),
    kv_end=pairs(mask.group_ends(groups), copies.starts, ends),
    targets=both(clean.targets, np.where(masked, copies.tokens, 0), np.int32),
    weights=both(clean.weights, masked * weights / divisor, np.float32),
    noise=both(clean.noise, masked * p, np.float32),
    count=clean.count + len(masked) // objective.copies,
  )
