"""The joint objective on a batch, and what is reported of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ttt_jax import batch as batch_lib

NOISE_BINS = 10  # accuracy is reported for ten ranges of the noise level


class Sums(NamedTuple):
  """Sums over the positions of a batch, float32; reports are ratios of them.

  Attributes:
    objective: weighted cross-entropy over both parts of the loss.
    normalizer: what the objective is divided by.
    text_loss: cross-entropy of text targets, nats.
    text_count: text targets.
    audio_loss: [NOISE_BINS], cross-entropy of masked audio tokens by noise level.
    audio_correct: [NOISE_BINS], those that were predicted rightly.
    audio_count: [NOISE_BINS], masked audio tokens.
    positions: positions of the batch.
    filled: those that are no padding.
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


def cross_entropy(
  logits: jax.Array, targets: jax.Array, vocabulary_size: int
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy, and whether the most likely id is the target.

  Args:
    logits: float32 [B, L, V]; rows from `vocabulary_size` on are padding and never drawn.
    targets: int32 [B, L].
    vocabulary_size: ids in use.

  Returns:
    float32 [B, L] in nats, and bool [B, L].
  """
  padding = jnp.arange(logits.shape[-1]) >= vocabulary_size
  logits = jnp.where(padding, -jnp.inf, logits)
  right = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  return jax.nn.logsumexp(logits, -1) - right, logits.max(-1) == right


def joint(
  logits: jax.Array, batch: batch_lib.Batch, audio_start: int, vocabulary_size: int
) -> tuple[jax.Array, Sums]:
  """The loss of a batch and the sums behind the reported metrics.

  Args:
    logits: float32 [B, L, V].
    batch: targets, weights and the divisor.
    audio_start: the first audio-class id; a target's class is its part of the loss.
    vocabulary_size: ids in use.
  """
  loss, correct = cross_entropy(logits, batch.targets, vocabulary_size)
  counted = batch.weights > 0
  audio = counted & (batch.targets >= audio_start)
  text = counted & ~audio
  loss = jnp.where(counted, loss, 0)
  level = jnp.clip((batch.noise * NOISE_BINS).astype(jnp.int32), 0, NOISE_BINS - 1)
  bins = jax.nn.one_hot(level, NOISE_BINS) * audio[..., None]
  objective, normalizer = jnp.sum(batch.weights * loss), jnp.sum(batch.normalizer)
  sums = Sums(
    objective=objective,
    normalizer=normalizer,
    text_loss=jnp.sum(loss * text),
    text_count=jnp.sum(text, dtype=jnp.float32),
    audio_loss=jnp.einsum('BL,BLX->X', loss, bins),
    audio_correct=jnp.einsum('BL,BLX->X', correct.astype(jnp.float32), bins),
    audio_count=jnp.sum(bins, (0, 1)),
    positions=jnp.float32(counted.size),
    filled=jnp.sum(batch.kv_end > batch.kv_start, dtype=jnp.float32),
  )
  return objective / jnp.maximum(normalizer, 1), sums
