import dataclasses

import jax
import numpy as np
import optax
import pytest
from conftest import make_config

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import losses, sharding
from ttt_jax import vocabulary as vocabulary_lib

SHAPE, WIDTH = (2, 5), 6
VOCABULARY = vocabulary_lib.Vocabulary(
  size=9,
  audio_start=4,
  codebook_start=4,
  codebook_size=1,
  turn_start=0,
  turn_end=1,
  begin_audio=2,
  begin_last=3,
  end_prompt=5,
  end_inner=6,
  end_last=7,
  mask=8,
  tokenizer='none',
)
AUDIO = VOCABULARY.audio_start


@pytest.fixture
def arrays():
  """Hidden states, a head with padding rows, and a batch."""
  rng = np.random.default_rng(0)
  head = rng.normal(size=(16, WIDTH)).astype(np.float32)
  targets = rng.integers(0, VOCABULARY.mask, SHAPE)
  hidden = (rng.normal(size=(*SHAPE, WIDTH)) + 0.4 * head[targets]).astype(np.float32)
  weights = rng.random(SHAPE).astype(np.float32)
  weights[0, 1] = weights[1, 3] = 0
  noise = np.where(targets >= AUDIO, 0.35, 0).astype(np.float32)
  start, end = np.zeros(SHAPE, int), np.ones(SHAPE, int)
  start[0], end[0], end[1, 3:] = 2, 5, 0
  batch = batch_lib.Batch(
    targets, start, start, end, targets, weights, noise, np.array([2.0, 1.0], np.float32)
  )
  return hidden, head, batch


def joint(arrays, chunk=4, **changes):
  objective = dataclasses.replace(make_config().objective, **changes)
  return losses.joint(
    *arrays, VOCABULARY, objective, make_config(model__loss_chunk=chunk).model
  )


def test_joint_loss_is_the_weighted_mean_and_splits_by_class(arrays):
  hidden, head, batch = arrays
  loss, sums = joint(arrays)
  logits = hidden @ head[: VOCABULARY.size].T
  nll = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets))
  np.testing.assert_allclose(loss, (batch.weights * nll).sum() / 3, rtol=1e-5)
  text = (batch.weights > 0) & (batch.targets < AUDIO)
  audio = (batch.weights > 0) & (batch.targets >= AUDIO)
  np.testing.assert_allclose(sums.text_loss, nll[text].sum(), rtol=1e-5)
  assert sums.text_count == text.sum()
  np.testing.assert_allclose(sums.audio_loss[3], nll[audio].sum(), rtol=1e-5)
  right = (logits.argmax(-1) == batch.targets) & audio
  assert sums.audio_correct[3] == right.sum() > 0
  assert sums.audio_count.tolist() == [0, 0, 0, audio.sum(), 0, 0, 0, 0, 0, 0]
  assert sums.filled == 8 and sums.positions == 10
  assert sums.visible == 5 * (5 - 2) + 3 * 1


def test_restricted_targets_are_predicted_among_the_ids_of_their_class(arrays):
  hidden, head, batch = arrays
  _, sums = joint(arrays, restrict_classes=True)
  logits = hidden @ head.T
  text = (batch.weights > 0) & (batch.targets < AUDIO)
  audio = (batch.weights > 0) & (batch.targets >= AUDIO)
  for ids, offset, chosen, ours in (
    (slice(0, AUDIO), 0, text, sums.text_loss),
    (slice(AUDIO, VOCABULARY.mask), AUDIO, audio, sums.audio_loss[3]),
  ):
    nll = optax.softmax_cross_entropy_with_integer_labels(
      logits[chosen][:, ids], batch.targets[chosen] - offset
    )
    np.testing.assert_allclose(ours, nll.sum(), rtol=1e-5)
  free, _ = joint(arrays)
  assert joint(arrays, restrict_classes=True)[0] < free


def test_z_loss_is_in_the_objective_and_in_no_reported_part(arrays):
  hidden, head, batch = arrays
  (loss, sums), (with_z, with_z_sums) = joint(arrays), joint(arrays, z_loss=0.1)
  log_z = jax.nn.logsumexp(hidden @ head[: VOCABULARY.size].T, -1)
  np.testing.assert_allclose(
    with_z - loss, 0.1 * (batch.weights * log_z**2).sum() / 3, rtol=1e-4
  )
  for name in ('text_loss', 'audio_loss', 'audio_correct'):
    np.testing.assert_array_equal(getattr(sums, name), getattr(with_z_sums, name))


def test_the_loss_is_laid_out_as_the_mesh_is():
  objective = make_config().objective

  def axes():
    return losses.options(VOCABULARY, objective, make_config().model).axes

  assert not any(axes())
  for sizes, wanted in (
    ({'data': 8}, (('data',), (), (), ())),
    ({'data': 4, 'sequence': 2}, (('data',), ('sequence',), (), ())),
    ({'data': 2, 'fsdp': 2, 'tensor': 2}, (('data', 'fsdp'), (), ('tensor',), ('fsdp',))),
    ({'data': 1, 'tensor': 8}, ((), (), ('tensor',), ())),
  ):
    mesh = sharding.make_mesh(
      config_lib.Mesh(
        **{'slices': 1, 'outer': 1, 'fsdp': 1, 'sequence': 1, 'tensor': 1} | sizes
      )
    )
    with jax.set_mesh(mesh):
      assert axes() == wanted
