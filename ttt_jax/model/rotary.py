"""Rotary position embedding (arXiv 2104.09864), halves convention as in Llama and Qwen."""

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax import config as config_lib


def frequencies(config: config_lib.Model) -> np.ndarray:
  """Radians a position, float64 [H / 2].

  With `rope_scaling='linear'` all are divided by `rope_factor`; with 'llama3' only the slow
  ones, whose wavelength covers much of the length that the model was first trained on (the
  Llama 3 models, arXiv 2407.21783, as released).
  """
  c = config
  half = c.head_width // 2
  base = c.rope_theta ** (-np.arange(half) / half)
  if c.rope_scaling == 'none':
    return base
  if c.rope_scaling == 'linear':
    return base / c.rope_factor
  # Turns within the original length: few turns are slowed, many are kept, between is mixed.
  turns = c.rope_original_length * base / (2 * np.pi)
  kept = (turns - c.rope_low_turns) / (c.rope_high_turns - c.rope_low_turns)
  kept = np.clip(kept, 0, 1)
  return base * (kept + (1 - kept) / c.rope_factor)


def rotate(x: jax.Array, positions: jax.Array, frequencies: np.ndarray) -> jax.Array:
  """Turns each pair of features by its angle.

  Args:
    x: [B, L, N, H].
    positions: int32 [B, L].
    frequencies: [H / 2], radians a position.

  Returns:
    [B, L, N, H], of `x`'s dtype.
  """
  frequency = jnp.asarray(frequencies, jnp.float32)
  angle = positions[..., None, None].astype(jnp.float32) * frequency  # [B, L, 1, H/2]
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, -1).astype(x.dtype)
