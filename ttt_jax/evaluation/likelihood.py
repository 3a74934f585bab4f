"""Likelihood of held-out records: text exactly, audio by the bound of the diffusion.

Text is scored left to right, all audio before it clean. Of an audio span whose length n is
given, the negative log-likelihood is at most

    E_k [ n / k * sum of the cross-entropies of k tokens masked at random ],  k uniform in 1..n,

(LLaDA, arXiv 2502.09992, equation 14: exact counts have less variance than times), what comes
before the span being clean and what follows unseen.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from data_pipelines.stream import rows
from ttt_jax import batch as batch_lib
from ttt_jax import chat, losses, sharding
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import corruption
from ttt_jax.model import transformer
from ttt_jax.ops import cross_entropy

_BATCH = 32
_LENGTH_MULTIPLE = 64

Row = tuple[chat.Document, corruption.Corrupted]


class Sums(NamedTuple):
  """Of one document; rates are ratios of such sums.

  Attributes:
    text_nats: negative log-likelihood of its text targets.
    text_targets: how many there are.
    audio_nats: bound on that of its response spans.
    audio_tokens: how many tokens these have, their ends included.
  """

  text_nats: float
  text_targets: float
  audio_nats: float
  audio_tokens: float


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


class Scorer:
  """Takes likelihoods with one network and whatever parameters it is given."""

  def __init__(
    self,
    model: transformer.Transformer,
    vocabulary: vocabulary_lib.Vocabulary,
    mask: config_lib.Mask,
    objective: config_lib.Objective,
    mesh: Mesh | None = None,
  ):
    """Compiles nothing yet.

    Args:
      model: the network.
      vocabulary: its ids.
      mask: as in training.
      objective: says whether targets are predicted among the ids of their class alone.
      mesh: on which the parameters lie, as in training; by default on one device.
    """
    self._objective = dataclasses.replace(objective, normalization='token', z_loss=0.0)
    self._vocabulary, self._mask, self._mesh = vocabulary, mask, mesh
    self._size, self._multiple = _BATCH, _LENGTH_MULTIPLE
    where = None
    if mesh:
      where = sharding.replicated(mesh)
      self._size = math.lcm(_BATCH, sharding.rows_of(mesh))
      self._multiple = math.lcm(_LENGTH_MULTIPLE, mesh.shape['sequence'])
    score = functools.partial(_score, model, vocabulary, self._objective)
    self._score = jax.jit(score, out_shardings=where)

  def rows(self, document: chat.Document, samples: int, seed: int) -> list[Row]:
    """What is read of a document: once as it is, and `samples` times for each span.

    The draws of k are spread evenly over 1..n.
    """
    rng = np.random.default_rng(seed)
    nothing = np.zeros(len(document.tokens), bool)
    args = nothing, nothing, 0.0, 0.0, self._objective, self._vocabulary
    out = [(document, corruption.with_targets(document, *args))]
    for span in np.flatnonzero(document.responses):
      size = int(np.diff(document.spans[span])[0])
      offset = rng.random()
      for draw in range(samples):
        count = 1 + int((draw + offset) / samples * size)
        args = span, count, rng, self._objective, self._vocabulary
        out.append(exact_count(document, *args))
    return out

  def score(self, params: Any, read: Sequence[Sequence[Row]], samples: int) -> list[Sums]:
    """The sums of some documents, which are read together.

    Args:
      params: of the network.
      read: of each document what `rows` gave, with as many `samples`.
      samples: see there.
    """
    flat = [row for rows_of_one in read for row in rows_of_one]
    order = sorted(range(len(flat)), key=lambda number: len(flat[number][0].tokens))
    found = np.zeros((len(flat), 2))
    for first in range(0, len(flat), self._size):
      chosen = order[first : first + self._size]
      sums = self._on_devices(params, self._batch([flat[number] for number in chosen]))
      found[chosen] = sums[: len(chosen)]
    out, start = [], 0
    for rows_of_one in read:
      own = found[start : start + len(rows_of_one)]
      start += len(rows_of_one)
      document = rows_of_one[0][0]
      tokens = int(np.diff(document.spans[document.responses], axis=1).sum())
      (text, targets), audio = own[0], own[1:, 0].sum() / samples
      out.append(Sums(float(text), float(targets), float(audio), float(tokens)))
    return out

  def _batch(self, chosen: Sequence[Row]) -> batch_lib.Batch:
    """One document a row."""
    longest = max(len(document.tokens) for document, _ in chosen)
    length = -(-longest // self._multiple) * self._multiple
    how = length, self._mask, self._objective, self._vocabulary
    made = [rows.pack([pair], *how) for pair in chosen]
    made += [batch_lib.empty(length)] * (self._size - len(made))
    return batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))

  def _on_devices(self, params: Any, batch: batch_lib.Batch) -> np.ndarray:
    """float32 [B, 2], of each row."""
    if not self._mesh:
      return jax.device_get(self._score(params, batch))
    number, parts = sharding.shard_of_process(self._mesh, self._size)
    part = self._size // parts
    own = jax.tree.map(lambda array: array[number * part : (number + 1) * part], batch)
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      batch = sharding.put_batch(own, self._mesh, self._size)
      return jax.device_get(self._score(params, batch))


def _score(model, vocabulary, objective, params, batch) -> jax.Array:
  """float32 [B, 2]: weighted cross-entropy and number of text targets of each row."""
  variables = {'params': params}
  view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
  hidden = model.apply(variables, *view, method='hidden')
  head = model.apply(variables, method='output_layer')
  options = losses.options(vocabulary, objective, model.config)
  _, scores = cross_entropy.cross_entropy(hidden, head, batch.targets, batch.weights, options)
  text = (batch.weights > 0) & (batch.targets < vocabulary.audio_start)
  nats = jnp.sum(batch.weights * scores.loss, 1)
  return jnp.stack([nats, jnp.sum(text, 1, dtype=jnp.float32)], 1)
