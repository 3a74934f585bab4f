"""The law of guidance; test_decoder.py holds whole answers to the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config

from ttt_jax.sampling import guidance, rows, session


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


def test_more_room_changes_nothing_of_what_is_there(assets):
  config = make_config(sampling__guidance=1.0)
  machine = rows.Machine(assets.vocabulary, config.sampling, config.mask)
  start, begin = assets.vocabulary.turn_start, assets.vocabulary.begin_last
  prompts = [np.array([start, start, begin]), np.array([start] * 6)]
  requests = [rows.Request(prompt, 0, config.sampling) for prompt in prompts]
  before = jax.tree.map(jnp.array, machine.start(requests, 3, 8))
  after = before.extended(12)
  for name in ('tokens', 'kv_end', 'condition'):
    array = getattr(after, name)
    assert array.shape == (3, 12)
    np.testing.assert_array_equal(array[:, :8], getattr(before, name))
  hidden = [[1, 1] + [0] * 10, [1] * 6 + [0] * 6, [0] * 12]
  np.testing.assert_array_equal(after.condition, np.array(hidden, bool))


@pytest.mark.parametrize('scale,dropout,warned', [(1.0, 0.0, 1), (1.0, 0.1, 0), (0.0, 0.0, 0)])
def test_a_model_that_was_not_trained_for_it_is_named(assets, caplog, scale, dropout, warned):
  changes = {'sampling__guidance': scale, 'objective__condition_dropout': dropout}
  session.Session(make_config(**changes), assets, {})
  found = [line for line in caplog.messages if 'objective.condition_dropout=0' in line]
  assert len(found) == warned
