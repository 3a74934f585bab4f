"""Drawing ids from logits: by class, and with a temperature."""

import jax
import jax.numpy as jnp

from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib


def restrict(
  logits: jax.Array, audio: jax.Array, vocabulary: vocabulary_lib.Vocabulary
) -> jax.Array:
  """Logits of the ids that may be drawn; the others become -inf.

  In audio these are the codes and the ends of response spans, in text the text class. The
  end of a prompt span is never drawn: it would make a user's span of one of the model's.

  Args:
    logits: float32 [..., V].
    audio: bool [...], whether audio is wanted there, or text.
    vocabulary: the classes.
  """
  v, ids = vocabulary, jnp.arange(logits.shape[-1])
  is_code = (ids >= v.codebook_start) & (ids < v.codebook_start + v.codebook_size)
  is_audio = is_code | (ids == v.end_inner) | (ids == v.end_last)
  is_text = (ids < v.audio_start) & (ids != v.end_prompt)
  return jnp.where(jnp.where(audio[..., None], is_audio, is_text), logits, -jnp.inf)


def keys(seeds: jax.Array, counts: jax.Array, places: int) -> jax.Array:
  """Random keys [B, places]: of a row's seed, of its draws so far, and of the place.

  Args:
    seeds: uint32 [B].
    counts: int32 [B].
    places: positions that are drawn together.
  """

  def key(seed, count, place):
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), count), place)

  along = jax.vmap(key, (None, None, 0))
  return jax.vmap(along, (0, 0, None))(seeds, counts, jnp.arange(places))


def draw(
  logits: jax.Array, keys: jax.Array, temperature: jax.Array, sampling: config_lib.Sampling
) -> tuple[jax.Array, jax.Array]:
  """One id a position, and how early it should be revealed.

  At temperature 0 it is the most likely id; else Gumbel noise is added, in float32, to the
  logits over the temperature, of which `top_k` and `top_p` keep the largest.

  Args:
    logits: float32 [B, K, V], -inf where an id may not be drawn.
    keys: random keys [B, K].
    temperature: float32 [B].
    sampling: what is kept, and the order of revealing.

  Returns:
    int32 [B, K] and float32 [B, K]: the probability that the model gives the id (before
    temperature and what follows from it), or noise where `order` is 'random'.
  """
  warm = temperature[:, None, None] > 0

  def noisy():
    noise = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[2:])))(keys)
    # From their top, so that no temperature, however small, makes two of them infinite.
    below = logits - logits.max(-1, keepdims=True)
    scaled = below / jnp.where(warm, temperature[:, None, None], 1)
    return jnp.where(warm, likeliest(scaled, sampling.top_k, sampling.top_p) + noise, logits)

  # Noise costs as much as a small network: none is made where nobody wants it.
  ids = jnp.argmax(jax.lax.cond(warm.any(), noisy, lambda: logits), -1).astype(jnp.int32)
  if sampling.order == 'random':
    return ids, jax.vmap(jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0))))(
      keys
    )
  chosen = jnp.take_along_axis(logits, ids[..., None], -1)[..., 0]
  return ids, jnp.exp(chosen - jax.nn.logsumexp(logits, -1))


def likeliest(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
  """Logits [..., V] of the ids that are kept; the others become -inf.

  Args:
    logits: float32 [..., V].
    top_k: so many at most are kept, and their equals; 0 keeps all.
    top_p: of those, the fewest that together have this probability, and their equals.
  """
  if 0 < top_k < logits.shape[-1]:
    least = jax.lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits >= least, logits, -jnp.inf)
  if top_p < 1:
    falling = jnp.sort(logits, -1, descending=True)
    odds = jax.nn.softmax(falling, -1)
    before = jnp.cumsum(odds, -1) - odds
    least = jnp.where(before < top_p, falling, jnp.inf).min(-1, keepdims=True)
    logits = jnp.where(logits >= least, logits, -jnp.inf)
  return logits
