import itertools
import math

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax import mask, sharding
from ttt_jax.diffusion import two_stream
from ttt_jax.evaluation import likelihood
from ttt_jax.model import transformer


def made(assets, config, mesh=None):
  v = assets.vocabulary
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  return params, likelihood.Scorer(model, v, config.mask, config.objective, mesh)


def sums_of(scorer, params, documents, samples):
  read = [scorer.read(document, samples, seed) for seed, document in enumerate(documents)]
  return scorer.score(params, read)


@pytest.mark.parametrize('restrict', [False, True])
def test_a_model_that_knows_nothing_needs_the_log_of_the_ids(assets, documents, restrict):
  config = make_config(objective__restrict_classes=restrict, objective__z_loss=0.5)
  v = assets.vocabulary
  text, audio = v.size, v.size
  if restrict:
    text, audio = v.audio_start, v.size - v.audio_start - 1  # the mask is never predicted
  params, scorer = made(assets, config)
  out = sums_of(scorer, jax.tree.map(np.zeros_like, params), documents[:4], 2)
  for document, sums in zip(documents, out):
    targets = document.targets[1:] & (document.tokens[1:] < v.audio_start)
    assert sums.text_targets == targets.sum()
    assert sums.text_nats == pytest.approx(math.log(text) * targets.sum(), rel=1e-5)
    assert sums.audio_tokens == np.diff(document.spans[document.responses]).sum()
    assert sums.audio_nats == pytest.approx(math.log(audio) * sums.audio_tokens, rel=1e-5)


def test_a_document_scores_the_same_beside_others_and_on_a_mesh(assets, documents):
  config = make_config(mesh__fsdp=2, mesh__sequence=2)
  params, scorer = made(assets, config)
  together = sums_of(scorer, params, documents[:4], 2)
  (alone,) = scorer.score(params, [scorer.read(documents[3], 2, 3)])
  np.testing.assert_allclose(alone, together[3], rtol=1e-5)
  _, on_mesh = made(assets, config, sharding.make_mesh(config.mesh))
  found = sums_of(on_mesh, params, documents[:4], 2)
  np.testing.assert_allclose(found, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('block', [None, 4])
def test_counts_are_exact_and_spread_over_each_group(assets, documents, block):
  v, samples = assets.vocabulary, 3
  document = next(d for d in documents if d.responses.sum() >= 2)
  copies = two_stream.copy(document, block, samples, v)
  masked, level = likelihood.exact_counts(copies, samples, np.random.default_rng(0))
  for group, size in enumerate(copies.sizes):
    here = copies.group == group
    count = masked[here].sum()
    np.testing.assert_allclose(level[here], count / size)
    # One of the first, the second, the last third of 1..n, rounded.
    part = (count - 1) * samples / size
    assert part < copies.copy[group] + 1 and count * samples / size > copies.copy[group]


@pytest.mark.parametrize('audio', ['span', 'block'])
def test_the_bound_is_the_mean_over_all_ways_to_mask(assets, documents, audio):
  """Brute force: every subset of every small group, each in a row of its own."""
  v, config = assets.vocabulary, make_config(mask__audio=audio, mask__block_size=3)
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(1), ids, ids, ids, ids + 1)['params'])
  document = next(d for d in documents if d.responses.any() and short(d))
  run = jax.jit(lambda *view: jax.nn.log_softmax(model.apply({'params': params}, *view)))
  wanted = 0.0
  for start, end in document.spans[document.responses].tolist():
    for begin in range(start, end, 3 if audio == 'block' else end - start):
      size = min(end - begin, 3 if audio == 'block' else end - start)
      for count in range(1, size + 1):
        ways = list(itertools.combinations(range(size), count))
        for way in ways:
          tokens = document.tokens[: begin + size].copy()
          tokens[[begin + i for i in way]] = v.mask
          groups = mask.document_groups(tokens, v.spans(tokens), config.mask, v)
          room = 96 - len(tokens)
          ends = np.pad(mask.group_ends(groups), (0, room))
          view = np.pad(tokens, (0, room)), np.arange(96), np.zeros(96, int), ends
          found = run(*(x[None] for x in view))[0]
          nats = -sum(float(found[begin + i, document.tokens[begin + i]]) for i in way)
          wanted += nats * size / count / len(ways) / size
  audio_tokens = int(np.diff(document.spans[document.responses]).sum())
  scorer = likelihood.Scorer(model, v, config.mask, config.objective)
  out = sums_of(scorer, params, [document] * 40, 4)
  mean = np.mean([sums.audio_nats for sums in out])
  assert mean == pytest.approx(wanted, rel=0.02) and out[0].audio_tokens == audio_tokens


def short(document):
  sizes = np.diff(document.spans[document.responses])
  return len(document.tokens) < 90 and 3 < sizes.max() < 8
