"""Drawing, and the choice of what is revealed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import make_config
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax.sampling import draw, reveal


def sampling(**changes):
  return dataclasses.replace(make_config().sampling, **changes)


def test_drawing_follows_the_softmax_of_the_allowed(assets):
  v = assets.vocabulary
  logits = jax.random.normal(jax.random.key(0), (1, 1, v.size + 5))
  for audio in (False, True):
    allowed = draw.restrict(logits, jnp.array([[audio]]), v)
    keys = draw.keys(jnp.zeros(1, jnp.uint32), jnp.arange(1), 4000)
    ids, _ = draw.draw(jnp.repeat(allowed, 4000, 1), keys, jnp.ones(1), sampling())
    ids = np.asarray(ids)[0]
    assert (v.is_audio(ids) == audio).all() and (ids < v.size).all()
    top = int(allowed.argmax())
    expected = float(jax.nn.softmax(allowed[0, 0])[top])
    assert np.mean(ids == top) == pytest.approx(expected, abs=0.03)


def test_what_an_answer_may_never_hold_is_not_allowed(assets):
  for v in (assets.vocabulary, dataclasses.replace(assets.vocabulary, end_prompt=3)):
    logits = jnp.zeros((2, v.size + 5))
    allowed = np.asarray(draw.restrict(logits, jnp.array([False, True]), v)) == 0
    text, audio = (set(np.flatnonzero(row)) for row in allowed)
    codes = range(v.codebook_start, v.codebook_start + v.codebook_size)
    assert text == set(range(v.audio_start)) - {v.end_prompt}
    assert audio == {*codes, v.end_inner, v.end_last}


def test_noise_depends_on_seed_count_and_place_alone():
  def bits(seeds, counts, places):
    made = draw.keys(jnp.array(seeds, jnp.uint32), jnp.array(counts), places)
    return np.asarray(jax.random.key_data(made)).tolist()

  (one,) = bits([7], [3], 4)
  assert bits([1, 7], [9, 3], 2)[1] == one[:2]
  others = [bits([8], [3], 1), bits([7], [4], 1), bits([3], [7], 1)]
  assert len({str(key) for key in (*one, *(other[0][0] for other in others))}) == 7


def test_confidence_is_the_probability_before_temperature_and_truncation():
  logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3]]]))
  keys = draw.keys(jnp.zeros(1, jnp.uint32), jnp.arange(1), 1)
  for temperature, changes in ((0, {}), (5, {'top_k': 1}), (5, {'top_p': 0.1})):
    ids, confidence = draw.draw(logits, keys, jnp.array([temperature]), sampling(**changes))
    assert int(ids[0, 0]) == 1
    np.testing.assert_allclose(confidence, 0.5, rtol=1e-6)


@pytest.mark.parametrize(
  'top_k,top_p,kept',
  [
    (0, 1.0, [0, 1, 2, 3]),
    (2, 1.0, [1, 3]),
    (9, 1.0, [0, 1, 2, 3]),
    (0, 0.39, [1]),
    (0, 0.41, [1, 3]),
    (0, 0.71, [0, 1, 3]),
    (3, 0.75, [1, 3]),  # 0.4 + 0.3 of the 0.9 that are left are more than 0.75
    (3, 0.80, [0, 1, 3]),
  ],
)
def test_the_likeliest_are_kept(top_k, top_p, kept):
  logits = jnp.log(jnp.array([[0.2, 0.4, 0.1, 0.3]]))
  found = draw.likeliest(logits, top_k, top_p)
  assert np.flatnonzero(np.isfinite(found[0])).tolist() == kept
  np.testing.assert_array_equal(found[0, jnp.array(kept)], logits[0, jnp.array(kept)])


@pytest.mark.parametrize('temperature', [1e-30, 1e-3])
def test_next_to_no_temperature_takes_the_most_likely(temperature):
  # Over a temperature that small all but the greatest of these would be infinite, or all.
  logits = jnp.array([[[3e3, 3.1e3, 0, -3.2e3, -jnp.inf]]])
  keys = draw.keys(jnp.zeros(1, jnp.uint32), jnp.arange(1), 1)
  ids, _ = draw.draw(logits, keys, jnp.array([temperature]), sampling())
  assert int(ids[0, 0]) == 1


def test_rows_have_temperatures_of_their_own():
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(3, 50, 8)), jnp.float32)
  keys = draw.keys(jnp.zeros(3, jnp.uint32), jnp.arange(3), 50)
  together, _ = draw.draw(logits, keys, jnp.array([0, 0.5, 2.0]), sampling())
  for row, temperature in enumerate((0, 0.5, 2.0)):
    (one, other), at = (0.1, temperature), slice(row, row + 1)
    (alone,), _ = draw.draw(logits[at], keys[at], jnp.array([other]), sampling())
    np.testing.assert_array_equal(together[row], alone)
    (colder,), _ = draw.draw(logits[at], keys[at], jnp.array([one]), sampling())
    assert (alone != colder).any() or row == 0
  np.testing.assert_array_equal(together[0], logits[0].argmax(-1))


def choose(priority, masked, step, settings):
  arrays = np.array([priority], np.float32), np.array([masked]), np.array([step])
  own = np.array([settings.steps_per_block]), np.array([settings.threshold])
  return np.asarray(reveal.choose(*arrays, *own))[0]


@settings(max_examples=50)
@given(
  st.lists(
    st.tuples(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.booleans()), min_size=6, max_size=6
  ),
  st.integers(1, 9),
  st.data(),
)
def test_the_foremost_masked_tokens_are_revealed(items, steps, data):
  priority, masked = (np.array(column) for column in zip(*items))
  step = data.draw(st.integers(0, min(steps, 6) - 1))
  count = reference.share(6, min(steps, 6), step)
  assert count >= 1
  chosen = choose(priority, masked, step, sampling(steps_per_block=min(steps, 6)))
  assert set(np.flatnonzero(chosen)) == set(reference.foremost(priority, masked, count))
  left = masked & ~chosen
  assert (chosen <= masked).all() and chosen.sum() == min(count, masked.sum())
  if chosen.any() and left.any():
    assert priority[chosen].min() >= priority[left].max()


@given(st.integers(1, 40), st.integers(1, 50))
def test_shares_add_up_to_the_block(block, steps):
  shares = [reference.share(block, steps, step) for step in range(steps)]
  assert sum(shares) == block and max(shares) - min(shares) <= 1


def test_all_over_the_threshold_are_revealed_and_one_at_least():
  settings = sampling(block_size=4, threshold=0.5)
  masked = [True, True, True, False]
  assert choose([0.6, 0.4, 0.9, 0.9], masked, 0, settings).tolist() == [
    True,
    False,
    True,
    False,
  ]
  assert choose([0.2, 0.4, 0.5, 0.9], masked, 3, settings).tolist() == [
    False,
    False,
    True,
    False,
  ]


def test_rows_have_steps_and_thresholds_of_their_own():
  priority = np.tile(np.array([0.9, 0.2, 0.7, 0.1], np.float32), (4, 1))
  steps, thresholds = np.array([1, 2, 4, 1]), np.array([0, 0, 0, 0.6])
  chosen = reveal.choose(priority, priority > 0, np.zeros(4, int), steps, thresholds)
  assert np.asarray(chosen).astype(int).tolist() == [
    [1, 1, 1, 1],
    [1, 0, 1, 0],
    [1, 0, 0, 0],
    [1, 0, 1, 0],
  ]


def test_random_order_is_uniform_and_blind():
  settings = sampling(order='random')
  logits = jnp.tile(
    jnp.log(jnp.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5], [0.7, 0.3]])), (1000, 1, 1)
  )
  keys = draw.keys(jnp.arange(1000, dtype=jnp.uint32), jnp.zeros(1000, int), 4)
  _, priority = draw.draw(logits, keys, jnp.zeros(1000), settings)
  many = jnp.zeros(1000, int)
  chosen = reveal.choose(priority, jnp.ones((1000, 4), bool), many, many + 4, many * 0.0)
  np.testing.assert_allclose(np.asarray(chosen).mean(0), 0.25, atol=0.06)


@pytest.mark.parametrize('threshold', [0.0, 0.5])
def test_what_is_no_number_is_revealed_all_the_same(threshold):
  masked = np.ones((1, 6), bool)
  priority = np.array([[0.9, np.nan, 0.1, np.nan, -np.inf, 0.4]], np.float32)
  order = []
  for step in range(6):
    own = (np.array([each]) for each in (step, 6, threshold))
    chosen = np.asarray(reveal.choose(priority, masked, *own))
    assert chosen.sum() == 1
    order.append(int(chosen[0].argmax()))
    masked = masked & ~chosen
  assert order == [0, 5, 2, 4, 1, 3]
