"""Likelihood of held-out records: text exactly, audio by the bound of the diffusion.

Text is scored left to right, all audio before it clean. Of an audio span whose length n is
given, the negative log-likelihood is at most

    E_k [ n / k * sum of the cross-entropies of k tokens masked at random ],  k uniform in 1..n,

(LLaDA, arXiv 2502.09992, equation 14: exact counts have less variance than times), what comes
before the span being clean and what follows unseen.
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
from ttt_jax.diffusion import corruption
from ttt_jax.model import transformer
from ttt_jax.training import step

_BATCH = 32
_LENGTH_MULTIPLE = 64


def exact_count(
  document: chat.Document,
  span: int,
  count: int,
  rng: np.random.Generator,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> tuple[chat.Document, corruption.Corrupted]:
  """A document cut behind span number `span`, of whose tokens `count` are masked.

  Their weights are n / count; text is no target.
  """
  start, end = document.spans[span]
  cut = corruption.truncate(document, end)
  masked = np.zeros(end, bool)
  masked[start + rng.permutation(end - start)[:count]] = True
  candidates = np.zeros(end, bool)
  candidates[start:end] = True
  level = count / (end - start)
  silent = cut._replace(targets=np.zeros(end, bool))
  corrupted = corruption.with_targets(
    silent, masked, candidates, 1 / level, level, objective, vocabulary
  )
  return cut, corrupted


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
    objective: says whether targets are predicted among the ids of their class alone.
    samples: draws of k for each span; they are spread evenly over 1..n.
    seed: of the draws.

  Returns:
    `text_nats` a text target, `audio_bound` nats an audio token, and how many there were:
    `text_targets`, `audio_tokens`; a rate whose count is 0 is left out.
  """
  objective = dataclasses.replace(objective, normalization='token', z_loss=0.0)
  rng = np.random.default_rng(seed)
  clean, noisy, audio_tokens = [], [], 0
  for document in documents:
    nothing = np.zeros(len(document.tokens), bool)
    corrupted = corruption.with_targets(
      document, nothing, nothing, 0.0, 0.0, objective, vocabulary
    )
    clean.append((document, corrupted))
    for span in np.flatnonzero(document.responses):
      size = int(np.diff(document.spans[span])[0])
      audio_tokens += size
      offset = rng.random()
      for draw in range(samples):
        count = 1 + int((draw + offset) / samples * size)
        noisy.append(exact_count(document, span, count, rng, objective, vocabulary))
  score = jax.jit(_scorer(model, vocabulary, objective))
  text, targets = _total(score, params, clean, mask, objective, vocabulary)
  audio, _ = _total(score, params, noisy, mask, objective, vocabulary)
  out = {'text_targets': targets, 'audio_tokens': audio_tokens}
  if targets:
    out['text_nats'] = text / targets
  if audio_tokens:
    out['audio_bound'] = audio / samples / audio_tokens
  return out


def _scorer(model, vocabulary, objective):
  def score(params, batch):
    _, sums = step.loss(model, vocabulary, objective, params, batch)
    return sums.objective, sums.text_count

  return score


def _total(score, params, documents, mask, objective, vocabulary) -> tuple[float, int]:
  """Weighted cross-entropy and number of text targets of all documents."""
  totals = [score(params, batch) for batch in _batches(documents, mask, objective, vocabulary)]
  totals = np.array(jax.device_get(totals), np.float64).reshape(-1, 2).sum(0)
  return float(totals[0]), int(totals[1])


def _batches(documents, mask, objective, vocabulary) -> Iterator[batch_lib.Batch]:
  """One document a row, those of like length together."""
  ordered = sorted(documents, key=lambda pair: len(pair[0].tokens))
  for first in range(0, len(ordered), _BATCH):
    chosen = ordered[first : first + _BATCH]
    length = -(-len(chosen[-1][0].tokens) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    made = [rows.pack([pair], length, mask, objective, vocabulary) for pair in chosen]
    made += [batch_lib.empty(length)] * (_BATCH - len(made))
    yield batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))
