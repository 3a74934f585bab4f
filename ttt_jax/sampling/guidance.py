"""Classifier-free guidance: audio is drawn as if it were told its condition more clearly.

The network reads every row twice, side by side: as it is, and with masks in place of its
condition (`diffusion.corruption.condition`), as `objective.condition_dropout` trains it. Both
have the same positions and see the same keys. Each has a row of the cache of its own, so what
is final of the one is final of the other.
"""

import jax
import jax.numpy as jnp

from ttt_jax.sampling import rows as rows_lib


def slots(rows: jax.Array) -> jax.Array:
  """Rows of the network, int32 [2B]: those of each row [B], with and without condition."""
  return jnp.stack([2 * rows, 2 * rows + 1], 1).reshape(-1)


def both(window: rows_lib.Window, mask: int) -> rows_lib.Window:
  """What the network reads of a window [B, ...]: [2B, ...], in the order of `slots`."""
  bare = jnp.where(window.condition, mask, window.tokens)
  twice = jax.tree.map(lambda x: jnp.repeat(x, 2, 0), window)
  return twice._replace(tokens=twice.tokens.at[1::2].set(bare))


def combine(logits: jax.Array, audio: jax.Array, scale: float) -> jax.Array:
  """`with + scale * (with - without)` where audio is wanted, and `with` where text is.

  That is the logarithm of `p(x | condition)^(1 + scale) / p(x)^scale`, up to a constant: the
  form of arXiv 2207.12598, equation 6.

  Args:
    logits: float32 [2B, K, V], in the order of `slots`.
    audio: bool [B].
    scale: `sampling.guidance`.

  Returns:
    float32 [B, K, V].
  """
  given, bare = logits[::2], logits[1::2]
  return jnp.where(audio[:, None, None], given + scale * (given - bare), given)
