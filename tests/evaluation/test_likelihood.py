import math

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax import sharding
from ttt_jax.evaluation import likelihood
from ttt_jax.model import transformer
from ttt_jax.training import step

pytestmark = pytest.mark.usefixtures('quick_to_compile')


def made(assets, config, mesh=None):
  v = assets.vocabulary
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  return model, params, likelihood.Scorer(model, v, config.mask, config.objective, mesh)


def sums_of(scorer, params, documents, samples):
  read = [scorer.rows(document, samples, seed) for seed, document in enumerate(documents)]
  return scorer.score(params, read, samples)


@pytest.mark.parametrize('restrict', [False, True])
def test_a_model_that_knows_nothing_needs_the_log_of_the_ids(assets, documents, restrict):
  config = make_config(objective__restrict_classes=restrict, objective__z_loss=0.5)
  v = assets.vocabulary
  text, audio = v.size, v.size
  if restrict:
    text, audio = v.audio_start, v.size - v.audio_start - 1  # the mask is never predicted
  _, params, scorer = made(assets, config)
  out = sums_of(scorer, jax.tree.map(np.zeros_like, params), documents[:4], 1)
  for document, sums in zip(documents, out):
    targets = document.targets[1:] & (document.tokens[1:] < v.audio_start)
    assert sums.text_targets == targets.sum()
    assert sums.text_nats == pytest.approx(math.log(text) * targets.sum(), rel=1e-5)
    assert sums.audio_tokens == np.diff(document.spans[document.responses]).sum()
    assert sums.audio_nats == pytest.approx(math.log(audio) * sums.audio_tokens, rel=1e-5)


def test_sums_are_those_of_the_loss_of_training(assets, documents):
  config = make_config(objective__normalization='token')
  v, (model, params, scorer) = assets.vocabulary, made(assets, config)
  chosen = [scorer.rows(document, 2, 7)[:3] for document in documents[:3]]
  assert all(map(len, chosen))
  loss = jax.jit(
    lambda batch: step.loss(model, v, config.objective, params, batch)[1].objective
  )
  for rows, sums in zip(chosen, scorer.score(params, chosen, 2)):
    for part, nats in ((rows[:1], sums.text_nats), (rows[1:], 2 * sums.audio_nats)):
      if part:
        assert nats == pytest.approx(float(loss(scorer._batch(part))), rel=1e-5)


def test_a_document_scores_the_same_beside_others_and_on_a_mesh(assets, documents):
  config = make_config(mesh__fsdp=2, mesh__sequence=2)
  _, params, scorer = made(assets, config)
  together = sums_of(scorer, params, documents[:4], 2)
  alone = scorer.score(params, [scorer.rows(documents[3], 2, 3)], 2)
  np.testing.assert_allclose(alone[0], together[3], rtol=1e-5)
  mesh = sharding.make_mesh(config.mesh)
  _, _, on_mesh = made(assets, config, mesh)
  np.testing.assert_allclose(
    sums_of(on_mesh, params, documents[:4], 2), together, rtol=1e-4, atol=1e-4
  )


def test_exact_counts_mask_so_many_of_one_span_and_drop_what_follows(assets, documents):
  objective = make_config(objective__normalization='token').objective
  document = next(d for d in documents if d.responses.sum() >= 2)
  span = int(np.flatnonzero(document.responses)[0])
  start, end = document.spans[span]
  rng = np.random.default_rng(0)
  for count in range(1, end - start + 1):
    cut, out = likelihood.exact_count(document, span, count, rng, objective, assets.vocabulary)
    masked = out.inputs == assets.vocabulary.mask
    assert len(cut.tokens) == end and masked.sum() == count and not masked[:start].any()
    np.testing.assert_allclose(out.weights[masked], (end - start) / count, rtol=1e-6)
    assert (out.weights[~masked] == 0).all()
