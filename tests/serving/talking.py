"""A model that says anything, behind a server that listens on this machine alone."""

import contextlib
import dataclasses
import socket
import threading

import httpx
import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax.model import transformer
from ttt_jax.sampling import session
from ttt_jax.serving import limits, server, service

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


@contextlib.contextmanager
def serving(talk, keys=(), **changes):
  """A server, and a client of it."""
  made = service.Service(talk, dataclasses.replace(limits.Limits(), **changes))
  running = server.Server(made, '127.0.0.1', keys, warm=False)
  listener = socket.create_server(('127.0.0.1', 0), backlog=256)
  thread = threading.Thread(target=running.serve_on, args=[listener], daemon=True)
  thread.start()
  port = listener.getsockname()[1]
  try:
    with httpx.Client(base_url=f'http://127.0.0.1:{port}', timeout=120) as client:
      while client.get('/readyz').status_code != 200:
        pass
      client.service, client.port = made, port
      yield client
  finally:
    running.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope='module')
def client(talk):
  with serving(talk) as made:
    yield made
