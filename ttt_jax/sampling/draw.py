"""Drawing ids from logits: by class, and with a temperature."""

import jax
import jax.numpy as jnp

from ttt_jax import vocabulary as vocabulary_lib


def restrict(
  logits: jax.Array, audio: jax.Array, vocabulary: vocabulary_lib.Vocabulary
) -> jax.Array:
  """Logits of the ids that may be drawn; the others become -inf.

  Args:
    logits: float32 [..., V].
    audio: bool [...], whether audio-class ids are wanted there, or text-class ones. The
      mask token and the padding rows of the vocabulary are never drawn.
    vocabulary: the classes.
  """
  ids = jnp.arange(logits.shape[-1])
  is_audio = (ids >= vocabulary.audio_start) & (ids < vocabulary.size)
  is_audio &= ids != vocabulary.mask
  is_text = ids < vocabulary.audio_start
  return jnp.where(jnp.where(audio[..., None], is_audio, is_text), logits, -jnp.inf)


def draw(logits: jax.Array, keys: jax.Array, temperature: float) -> tuple[jax.Array, jax.Array]:
  """One id a position, and the probability that the model gives it.

  Args:
    logits: float32 [B, K, V], -inf where an id may not be drawn.
    keys: a random key a row, [B].
    temperature: 0 takes the most likely id; else logits are divided by it and Gumbel noise
      is added, in float32.

  Returns:
    int32 [B, K] and float32 [B, K].
  """
  noisy = logits
  if temperature > 0:
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[1:]))(keys)
    noisy = logits / temperature + noise
  ids = jnp.argmax(noisy, -1).astype(jnp.int32)
  chosen = jnp.take_along_axis(logits, ids[..., None], -1)[..., 0]
  return ids, jnp.exp(chosen - jax.nn.logsumexp(logits, -1))
