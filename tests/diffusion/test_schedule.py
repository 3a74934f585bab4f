import numpy as np
import pytest
from conftest import make_config

from ttt_jax.diffusion import corruption, schedule, two_stream

SCHEDULES = ('linear', 'cosine', 'polynomial')
T = np.linspace(0.01, 0.99, 50)


def objective(name, **more):
  return make_config(objective__schedule=name, **more).objective


@pytest.mark.parametrize('name', SCHEDULES)
def test_alpha_falls_from_one_to_zero(name):
  o = objective(name)
  np.testing.assert_allclose(schedule.alpha(o, np.array([0.0, 1.0])), [1, 0], atol=1e-12)
  assert (np.diff(schedule.alpha(o, T)) < 0).all()


@pytest.mark.parametrize('name', SCHEDULES)
def test_derivative_is_that_of_alpha(name):
  o, h = objective(name), 1e-6
  numeric = (schedule.alpha(o, T + h) - schedule.alpha(o, T - h)) / (2 * h)
  np.testing.assert_allclose(schedule.alpha_prime(o, T), numeric, rtol=1e-6)


def test_weights_in_closed_form():
  eps = 1e-12
  linear = schedule.weight(objective('linear', objective__epsilon=eps), T)
  np.testing.assert_allclose(linear, 1 / T, rtol=1e-6)
  poly = objective('polynomial', objective__epsilon=eps, objective__power=3.0)
  np.testing.assert_allclose(schedule.weight(poly, T), 3 / T, rtol=1e-4)
  cosine = schedule.weight(objective('cosine', objective__epsilon=eps), T)
  np.testing.assert_allclose(cosine, np.pi / 2 * np.tan(np.pi / 2 * (1 - T)), rtol=1e-6)


@pytest.mark.parametrize('name', SCHEDULES)
def test_the_bound_does_not_depend_on_the_schedule(name):
  # A token is masked with probability 1 - alpha and then weighs w: with a model that is
  # always wrong by one nat, each token must count once whatever the schedule.
  o = objective(name, objective__epsilon=1e-6)
  t = (np.arange(200_000) + 0.5) / 200_000
  total = np.mean(schedule.weight(o, t) * (1 - schedule.alpha(o, t)))
  assert total == pytest.approx(1, abs=1e-4)


def test_epsilon_keeps_noise_away_from_zero():
  o = objective('linear', objective__epsilon=0.1)
  np.testing.assert_allclose(schedule.noise(o, np.array([0.0, 1.0])), [0.1, 1.0])


@pytest.mark.parametrize('two_streams', [False, True])
def test_times_lie_in_their_range(documents, assets, two_streams):
  changes = {'objective__time_range': (0.25, 0.5), 'objective__epsilon': 1e-9}
  changes |= {'objective__banom': 0.0, 'objective__ppm': 0.0}
  if two_streams:
    changes |= {'objective__layout': 'two_stream'}
  config = make_config(**changes)
  found = []
  for number in np.arange(0, 1, 0.05):
    assert schedule.time(config.objective, number) == pytest.approx(0.25 + number / 4)
    for document in documents[:8]:
      uniforms = np.zeros(300)  # all is masked
      if two_streams:
        copies = two_stream.copy(document, None, 1, assets.vocabulary)
        uniforms = uniforms[: len(copies.tokens)]
        draws = corruption.Draws(number, uniforms, False, 0, False)
        how = config.mask, config.objective, assets.vocabulary
        found += two_stream.corrupt(document, draws, *how).noise.tolist()
      else:
        draws = corruption.Draws(number, uniforms[: len(document.tokens)], False, 0, False)
        out = corruption.corrupt(document, draws, config.objective, assets.vocabulary)
        found += out.noise.tolist()
  levels = np.array([level for level in found if level])
  assert levels.min() == pytest.approx(0.25, abs=0.01) and 0.45 < levels.max() <= 0.5
