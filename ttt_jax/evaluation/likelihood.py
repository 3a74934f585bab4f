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
from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import laid as laid_lib
from ttt_jax.diffusion import two_stream
from ttt_jax.model import transformer
from ttt_jax.ops import cross_entropy

_BATCH = 32
_LENGTH_MULTIPLE = 64


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


class Read(NamedTuple):
  """A document as it is scored.

  Attributes:
    laid: its clean text and its noisy groups.
    audio_tokens: of its response spans.
  """

  laid: laid_lib.Laid
  audio_tokens: int


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
      objective: says whether targets are predicted among the ids of their class alone, and
        whether blocks were trained to their end.
      mesh: on which the parameters lie, as in training; by default on one device.
    """
    self._padded = objective.streams == 2
    self._objective = dataclasses.replace(
      objective,
      **{'normalization': 'token', 'z_loss': 0.0, 'banom': 0.0, 'ppm': 0.0},
      layout='two_stream',
    )
    self._vocabulary, self._mask, self._mesh = vocabulary, mask, mesh
    self._size, self._multiple = _BATCH, _LENGTH_MULTIPLE
    where = None
    if mesh:
      where = sharding.replicated(mesh)
      self._size = math.lcm(_BATCH, sharding.rows_of(mesh))
      self._multiple = math.lcm(_LENGTH_MULTIPLE, mesh.shape['sequence'])
    score = functools.partial(_score, model, vocabulary, self._objective)
    self._score = jax.jit(score, out_shardings=where)

  def read(self, document: chat.Document, samples: int, seed: int) -> Read:
    """Lays a document out.

    Args:
      document: held out.
      samples: draws of k for each group; they are spread evenly over 1..n.
      seed: of the draws.
    """
    objective = dataclasses.replace(self._objective, copies=samples)
    block, v = self._mask.group_size, self._vocabulary
    groups = mask_lib.document_groups(document.tokens, document.spans, self._mask, v)
    copies = two_stream.copy(document, block, samples, v, padded=self._padded)
    masked, level = exact_counts(copies, samples, np.random.default_rng(seed))
    laid = two_stream.lay(document, groups, copies, masked, level, 1 / level, objective, v)
    return Read(laid, int(np.diff(document.spans[document.responses]).sum()))

  def score(self, params: Any, documents: Sequence[Read]) -> list[Sums]:
    """The sums of some documents, of which those of like length are read together."""
    lengths = [len(one.laid.inputs) for one in documents]
    order = np.argsort(lengths, kind='stable')
    found = np.zeros((len(documents), 3))
    for first in range(0, len(order), self._size):
      chosen = order[first : first + self._size]
      batch = self._batch([documents[number].laid for number in chosen])
      found[chosen] = self._on_devices(params, batch)[: len(chosen)]
    return [
      Sums(float(text), float(targets), float(audio), float(one.audio_tokens))
      for one, (text, targets, audio) in zip(documents, found)
    ]

  def _batch(self, chosen: Sequence[laid_lib.Laid]) -> batch_lib.Batch:
    """One document a row."""
    longest = max(len(laid.inputs) for laid in chosen)
    length = -(-longest // self._multiple) * self._multiple
    made = [rows.pack([laid], length, self._objective) for laid in chosen]
    made += [batch_lib.empty(length, self._objective.streams)] * (self._size - len(made))
    return batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))

  def _on_devices(self, params: Any, batch: batch_lib.Batch) -> np.ndarray:
    """float32 [B, 3], of each row."""
    if not self._mesh:
      return jax.device_get(self._score(params, batch))
    rows = sharding.rows_of_process(self._mesh, self._size)
    own = jax.tree.map(lambda array: array[rows], batch)
    with jax.set_mesh(self._mesh), nn.logical_axis_rules(sharding.RULES):
      batch = sharding.put_batch(own, self._mesh, self._size)
      return jax.device_get(self._score(params, batch))


def _score(model, vocabulary, objective, params, batch) -> jax.Array:
  """float32 [B, 3]: nats of text, number of text targets, and nats of audio, of each row."""
  variables = {'params': params}
  view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
  hidden = model.apply(variables, *view, method='hidden')
  head = model.apply(variables, method='output_layer')
  options = losses.options(vocabulary, objective, model.config)
  _, scores = cross_entropy.cross_entropy(hidden, head, batch.targets, batch.weights, options)
  text = (batch.weights > 0) & (batch.targets < vocabulary.audio_start)
  nats = batch.weights * scores.loss
  parts = jnp.where(text, nats, 0), text, jnp.where(text, 0, nats)
  return jnp.stack([jnp.sum(part, 1, dtype=jnp.float32) for part in parts], 1)
