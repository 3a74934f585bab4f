import jax
import jax.numpy as jnp
import numpy as np
import optax

from ttt_jax import batch as batch_lib
from ttt_jax import losses


def test_padding_of_the_vocabulary_is_never_likely():
  logits = jax.random.normal(jax.random.key(0), (1, 3, 8)).at[..., 6:].set(50.0)
  targets = jnp.array([[0, 5, 2]])
  ours, correct = losses.cross_entropy(logits, targets, 6)
  wanted = optax.softmax_cross_entropy_with_integer_labels(logits[..., :6], targets)
  np.testing.assert_allclose(ours, wanted, rtol=1e-6)
  np.testing.assert_array_equal(correct, logits[..., :6].argmax(-1) == targets)


def test_joint_loss_is_the_weighted_mean_and_splits_by_class():
  rng = np.random.default_rng(0)
  shape, v, audio_start = (2, 5), 9, 4
  logits = jnp.array(rng.normal(size=(*shape, v)), jnp.float32)
  targets = rng.integers(0, v, shape)
  weights = rng.random(shape).astype(np.float32)
  weights[0, 1] = weights[1, 3] = 0
  noise = np.where(targets >= audio_start, 0.35, 0).astype(np.float32)
  start, end = np.zeros(shape, int), np.ones(shape, int)
  end[1, 3:] = 0
  batch = batch_lib.Batch(
    targets, start, start, end, targets, weights, noise, np.array([2.0, 1.0], np.float32)
  )
  loss, sums = losses.joint(logits, batch, audio_start, v)
  nll = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits, targets))
  np.testing.assert_allclose(loss, (weights * nll).sum() / 3, rtol=1e-6)
  text = (weights > 0) & (targets < audio_start)
  audio = (weights > 0) & (targets >= audio_start)
  np.testing.assert_allclose(sums.text_loss, nll[text].sum(), rtol=1e-6)
  assert sums.text_count == text.sum()
  np.testing.assert_allclose(sums.audio_loss[3], nll[audio].sum(), rtol=1e-6)
  assert sums.audio_count.tolist() == [0, 0, 0, audio.sum(), 0, 0, 0, 0, 0, 0]
  assert sums.filled == 8 and sums.positions == 10
