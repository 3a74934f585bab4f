"""Likelihood of held-out records: text exactly, audio by the bound of the diffusion.

Text is scored left to right, all audio before it clean. Of a group of n audio tokens, a span or
a block of one, the negative log-likelihood given all that comes before it is at most

    E_k [ n / k * sum of the cross-entropies of k tokens masked at random ],  k uniform in 1..n

(LLaDA, arXiv 2502.09992, equation 14: exact counts have less variance than times). This is what
decoding sees, whatever the model was trained on. So clean text and noisy groups lie in two
streams, and one pass scores both. The length of a span is given, but where blocks were trained
to their end: there it is scored too.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.stream import rows
from ttt_jax import batch as batch_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import laid as laid_lib
from ttt_jax.diffusion import two_stream
from ttt_jax.model import transformer
from ttt_jax.training import step

_BATCH = 32
_LENGTH_MULTIPLE = 64


def exact_counts(
  copies: two_stream.Copies, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """Masks k tokens of each group; the k of its copies are spread evenly over 1..n.

  Args:
    copies: groups, each `number` times.
    number: of copies.
    rng: draws.

  Returns:
    bool [c], what is masked; float [c], k / n of each token's group.
  """
  offsets = rng.random(copies.index.max(initial=-1) + 1)[copies.index]
  counts = 1 + ((copies.copy + offsets) / number * copies.sizes).astype(int)
  order = np.lexsort((rng.random(len(copies.group)), copies.group))
  rank = np.empty_like(order)
  rank[order] = np.arange(len(order)) - (np.cumsum(copies.sizes) - copies.sizes)[copies.group]
  return rank < counts[copies.group], (counts / copies.sizes)[copies.group]


def measure(
  model: transformer.Transformer,
  params: Any,
  documents: Sequence[chat.Document],
  vocabulary: vocabulary_lib.Vocabulary,
  mask: config_lib.Mask,
  objective: config_lib.Objective,
  samples: int = 4,
  seed: int = 0,
) -> dict[str, float]:
  """Nats a token of the documents' targets.

  Args:
    model: the network.
    params: its parameters.
    documents: held-out documents.
    vocabulary: their ids.
    mask: as in training.
    objective: says whether targets are predicted among the ids of their class alone, and
      whether blocks were trained to their end.
    samples: draws of k for each group; they are spread evenly over 1..n.
    seed: of the draws.

  Returns:
    `text_nats` a text target, `audio_bound` nats an audio token, and how many there were:
    `text_targets`, `audio_tokens`; a rate whose count is 0 is left out.
  """
  padded = objective.streams == 2
  objective = dataclasses.replace(
    objective,
    **{'normalization': 'token', 'z_loss': 0.0, 'banom': 0.0, 'ppm': 0.0},
    **{'layout': 'two_stream', 'copies': samples},
  )
  rng = np.random.default_rng(seed)
  laid, audio_tokens = [], 0
  for document in documents:
    audio_tokens += int(np.diff(document.spans[document.responses]).sum())
    copies = two_stream.copy(
      document, two_stream.block_of(mask), samples, vocabulary, padded=padded
    )
    masked, level = exact_counts(copies, samples, rng)
    how = mask, objective, vocabulary
    laid.append(two_stream.lay(document, copies, masked, level, 1 / level, *how))
  score = jax.jit(_scorer(model, vocabulary, objective))
  totals = [score(params, batch) for batch in _batches(laid, objective)]
  text, audio, targets = np.array(jax.device_get(totals), np.float64).reshape(-1, 3).sum(0)
  out = {'text_targets': int(targets), 'audio_tokens': audio_tokens}
  if targets:
    out['text_nats'] = float(text / targets)
  if audio_tokens:
    out['audio_bound'] = float(audio / audio_tokens)
  return out


def _scorer(model, vocabulary, objective):
  def score(params, batch):
    _, sums = step.loss(model, vocabulary, objective, params, batch)
    return sums.text_loss, sums.objective - sums.text_loss, sums.text_count

  return score


def _batches(
  documents: list[laid_lib.Laid], objective: config_lib.Objective
) -> Iterator[batch_lib.Batch]:
  """One document a row, those of like length together."""
  ordered = sorted(documents, key=lambda laid: len(laid.inputs))
  for first in range(0, len(ordered), _BATCH):
    chosen = ordered[first : first + _BATCH]
    length = -(-len(chosen[-1].inputs) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    made = [rows.pack([one], length, objective) for one in chosen]
    made += [batch_lib.empty(length, objective.streams)] * (_BATCH - len(made))
    yield batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))
