"""A model that says anything, behind a server that listens on this machine alone."""

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn
from heard import serving

from ttt_jax.model import transformer
from ttt_jax.sampling import session

BATCH = 4


@pytest.fixture(scope='session')
def chatty(assets):
  """Random weights that begin and end audio often, and say few words."""
  config = make_config(model__tied=False, sampling__batch=BATCH, sampling__max_prompt=300)
  v = assets.vocabulary
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(3), ids, ids, ids, ids + 1)['params'])
  params = jax.tree.map(lambda leaf: 2 * np.array(leaf) if leaf.ndim > 2 else leaf, params)
  head = np.array(params['head'])
  said = [*range(40, 60), v.begin_audio, v.begin_last, v.turn_end]
  silent = np.setdiff1d(np.arange(v.audio_start), said)
  head[silent] = 0
  head[said] *= 3
  return config, params | {'head': head}


@pytest.fixture(scope='session')
def talk(chatty, assets):
  """The model by itself: what it says to one."""
  config, params = chatty
  quick = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield session.Session(config, assets, params)
  jax.config.update('jax_disable_most_optimizations', quick)


@pytest.fixture(scope='module')
def client(talk):
  with serving(talk) as made:
    yield made
