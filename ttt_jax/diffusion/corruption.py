"""From a document to inputs, targets and weights: the joint objective of the paper.

Text is autoregressive: where token i+1 is text class and a target, position i must predict
it. Audio is absorbing diffusion: a response's audio tokens are masked with probability p(t),
and a masked position must predict its own token. The three strategies of the paper
(arXiv 2509.20072, section 3) are BANOM (train text only, on clean audio), PPM (keep the
spans before a random one clean) and SST (cut the last span). A fourth, condition dropout,
trains audio without what it answers (arXiv 2207.12598), for guidance in decoding. Everything
random comes in as an argument, so that each function here is a function of it.
"""

from typing import NamedTuple

import numpy as np

from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import schedule


class Draws(NamedTuple):
  """What chance decides about one document.

  Attributes:
    time: in [0, 1], which t of `objective.time_range` the diffusion has.
    uniforms: float [n], one number in [0, 1) a token; it is masked where it is below p.
    banom: BANOM applies: nothing is masked.
    keep: number of response spans, counted from the first, that stay clean (PPM).
    dropped: the condition is dropped: audio is predicted without it, and no text is.
  """

  time: float
  uniforms: np.ndarray
  banom: bool
  keep: int
  dropped: bool


class Corrupted(NamedTuple):
  """One document, ready to be packed; arrays are [n].

  Attributes:
    inputs: int32, tokens after masking.
    targets: int32, what each position must predict.
    weights: float32, 0 where it is no target.
    noise: float32, p for audio targets, 0 elsewhere.
    count: text targets plus audio tokens that could have been masked.
  """

  inputs: np.ndarray
  targets: np.ndarray
  weights: np.ndarray
  noise: np.ndarray
  count: int


def truncated_length(
  start: np.ndarray, codes: np.ndarray, draws: np.ndarray, objective: config_lib.Objective
) -> np.ndarray:
  """Lengths of documents after stochastic span truncation (SST).

  Args:
    start: int [R], where the last response span begins; ignored where `codes` is 0.
    codes: int [R], tokens of that span without its end token; 0 if there is no such span.
    draws: float [R, 2] in [0, 1): whether to cut, and where.
    objective: probability, range and least length.

  Returns:
    int [R], the length that is kept, 0 where the document stays whole.
  """
  low, high = objective.sst_range
  cut = (draws[:, 0] < objective.sst) & (codes > objective.sst_above)
  kept = np.maximum(1, np.floor((low + (high - low) * draws[:, 1]) * codes)).astype(np.int64)
  return np.where(cut, start + kept, 0)


def truncate(document: chat.Document, length: int) -> chat.Document:
  """The first `length` tokens of a document, spans included."""
  spans = document.spans[document.spans[:, 0] < length]
  return chat.Document(
    document.tokens[:length], document.targets[:length], np.minimum(spans, length)
  )


def maskable(document: chat.Document, keep: int = 0) -> np.ndarray:
  """bool [n]: tokens of response spans, but for the first `keep` of those spans."""
  out = np.zeros(len(document.tokens), bool)
  for start, end in document.spans[document.responses][keep:]:
    out[start:end] = True
  return out


def condition(
  tokens: np.ndarray,
  spans: np.ndarray,
  responses: np.ndarray,
  vocabulary: vocabulary_lib.Vocabulary,
) -> np.ndarray:
  """bool [n]: what the audio of responses is conditioned on.

  That is every token, text behind and between the spans included, but for the response spans
  and the begins of audio that begin no prompt span.

  Args:
    tokens: int [n], whole or still growing; a begin at its end begins a response span.
    spans: int [spans, 2], its audio spans.
    responses: bool [spans], which of them are of a response.
    vocabulary: knows the begins.
  """
  out = ~np.isin(tokens, vocabulary.begins)
  for (start, end), response in zip(spans, responses):
    if response:
      out[start:end] = False
    else:
      out[max(0, start - 1)] = True
  return out


def without_condition(
  document: chat.Document, vocabulary: vocabulary_lib.Vocabulary
) -> chat.Document:
  """A document with masks in place of its condition, of which no text is a target.

  The mask is a sufficient null: intervals, not ids, say who sees whom, so that a mask in a
  place of text is still read left to right.
  """
  hidden = condition(document.tokens, document.spans, document.responses, vocabulary)
  tokens = np.where(hidden, vocabulary.mask, document.tokens)
  return document._replace(tokens=tokens, targets=np.zeros_like(document.targets))


def corrupt(
  document: chat.Document,
  draws: Draws,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Corrupted:
  """Masks audio and sets the targets and weights of both parts of the loss."""
  t = schedule.time(objective, draws.time)
  p = float(schedule.noise(objective, t))
  candidates = maskable(document, draws.keep) & (not draws.banom)
  masked = candidates & (draws.uniforms < p)
  weight = float(schedule.weight(objective, t))
  if draws.dropped:
    document = without_condition(document, vocabulary)
  return with_targets(document, masked, candidates, weight, p, objective, vocabulary)


def with_targets(
  document: chat.Document,
  masked: np.ndarray,
  candidates: np.ndarray,
  weight: float,
  p: float,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> Corrupted:
  """Targets and weights of a document whose tokens at `masked` are masked.

  Args:
    document: the clean document.
    masked: bool [n], the audio tokens that are masked.
    candidates: bool [n], those that could have been.
    weight: of each masked token.
    p: the probability with which they were masked.
    objective: says how weights are normalized.
    vocabulary: gives the mask token and the classes.
  """
  tokens = document.tokens
  following = np.append(tokens[1:], 0)
  text = np.append(document.targets[1:] & ~vocabulary.is_audio(tokens[1:]), False)
  text &= ~masked  # a masked end token predicts itself, and nothing else
  text_weight, audio_weight = 1.0, weight
  if objective.normalization == 'document':
    text_weight /= max(1, text.sum())
    audio_weight /= max(1, candidates.sum())
  return Corrupted(
    inputs=np.where(masked, vocabulary.mask, tokens).astype(np.int32),
    targets=np.where(masked, tokens, np.where(text, following, 0)).astype(np.int32),
    weights=(text_weight * text + audio_weight * masked).astype(np.float32),
    noise=(p * masked).astype(np.float32),
    count=int(text.sum() + candidates.sum()),
  )
