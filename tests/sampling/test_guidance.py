"""The law of guidance; test_decoder.py holds whole answers to the reference."""

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax.sampling import guidance


def test_audio_is_drawn_by_the_odds_with_condition_over_those_without():
  rng, scale = np.random.default_rng(0), 0.7
  given, bare = rng.dirichlet(np.ones(5), (2, 3, 4))  # of 3 rows and 4 places
  logits = np.stack([np.log(given) + 1, np.log(bare) - 2], 1).reshape(6, 4, 5)
  audio = np.array([True, False, True])
  found = jax.nn.softmax(guidance.combine(jnp.array(logits), jnp.array(audio), scale), -1)
  wanted = given * (given / bare) ** scale
  wanted /= wanted.sum(-1, keepdims=True)
  wanted[1] = given[1]  # text is drawn as it is
  np.testing.assert_allclose(found, wanted, rtol=1e-4)
