"""The joint objective on a batch, and what is reported of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.ops import cross_entropy, dot

NOISE_BINS = 10  # accuracy is reported for ten ranges of the noise level


class Sums(NamedTuple):
  """Sums over the positions of a batch, float32; reports are ratios of them.

  Attributes:
    objective: weighted cross-entropy over both parts of the loss, with the z-loss.
    normalizer: what the objective is divided by.
    text_loss: cross-entropy of text targets, nats.
    text_count: text targets.
    audio_loss: [NOISE_BINS], cross-entropy of masked audio tokens by noise level.
    audio_correct: [NOISE_BINS], those that were predicted rightly.
    audio_count: [NOISE_BINS], masked audio tokens.
    positions: positions of the batch.
    filled: those that are no padding.
    visible: pairs of a position and a key that it sees.
  """

  objective: jax.Array
  normalizer: jax.Array
  text_loss: jax.Array
  text_count: jax.Array
  audio_loss: jax.Array
  audio_correct: jax.Array
  audio_count: jax.Array
  positions: jax.Array
  filled: jax.Array
  visible: jax.Array


def options(
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  model: config_lib.Model,
) -> cross_entropy.Options:
  """How the cross-entropy is taken, under the mesh that is set, if any."""
  bounds, excluded = (0, vocabulary.size), None
  if objective.restrict_classes:
    bounds, excluded = (0, vocabulary.audio_start, vocabulary.size), vocabulary.mask
  return cross_entropy.Options(
    bounds,
    excluded,
    objective.z_loss,
    model.loss_chunk,
    sharding.axes_of_table(),
    model.reduce_dtype,
  )


def joint(
  hidden: jax.Array,
  head: jax.Array,
  batch: batch_lib.Batch,
  vocabulary: vocabulary_lib.Vocabulary,
  objective: config_lib.Objective,
  model: config_lib.Model,
) -> tuple[jax.Array, Sums]:
  """The loss of a batch and the sums behind the reported metrics.

  Args:
    hidden: [B, L, D], final hidden states.
    head: [V, D], the output layer.
    batch: targets, weights and the divisor.
    vocabulary: the classes; a target's class is its part of the loss.
    objective: z-loss, and whether softmaxes are restricted to the target's class.
    model: how the loss is computed: `loss_chunk` and `reduce_dtype`.
  """
  total, (loss, correct) = cross_entropy.cross_entropy(
    hidden, head, batch.targets, batch.weights, options(vocabulary, objective, model)
  )
  counted = batch.weights > 0
  audio = counted & (batch.targets >= vocabulary.audio_start)
  text = counted & ~audio
  level = jnp.clip((batch.noise * NOISE_BINS).astype(jnp.int32), 0, NOISE_BINS - 1)
  bins = jax.nn.one_hot(level, NOISE_BINS) * audio[..., None]
  normalizer = jnp.sum(batch.normalizer)
  sums = Sums(
    objective=total,
    normalizer=normalizer,
    text_loss=jnp.sum(loss * text),
    text_count=jnp.sum(text, dtype=jnp.float32),
    audio_loss=dot.einsum('BL,BLX->X', loss, bins),
    audio_correct=dot.einsum('BL,BLX->X', correct.astype(jnp.float32), bins),
    audio_count=jnp.sum(bins, (0, 1)),
    positions=jnp.float32(counted.size),
    filled=jnp.sum(batch.visible > 0, dtype=jnp.float32),
    visible=jnp.sum(batch.visible, dtype=jnp.float32),
  )
  return total / jnp.maximum(normalizer, 1), sums
