"""A server on this machine alone, and what a client of it hears."""

import base64
import contextlib
import dataclasses
import json
import socket
import threading
import time

import httpx
import numpy as np

from ttt_jax.codecs import audio_io
from ttt_jax.serving import limits, server, service

EVENTS = {'accept': 'text/event-stream'}
_PATIENCE = 600  # seconds: many may wait for what is compiled, on a busy machine


def events_of(lines):
  """(name, content) of each server-sent event."""
  name = None
  for line in lines:
    field, _, value = line.partition(': ')
    if field == 'event':
      name = value
    elif field == 'data':
      yield name, json.loads(value)


def warm(temperature):
  return {'text_temperature': temperature, 'audio_temperature': temperature}


def ask(client, path, said, **settings):
  """The events of one answer."""
  with client.stream(
    'POST', path, json={'text': said}, params=settings, headers=EVENTS
  ) as told:
    told.read() if told.status_code != 200 else None
    assert told.status_code == 200, told.text
    return list(events_of(told.iter_lines()))


def text_of(events):
  return ''.join(content['text'] for name, content in events if name == 'text')


def pcm_of(events):
  return b''.join(
    base64.b64decode(content['pcm']) for name, content in events if name == 'audio'
  )


def wav_of(seconds=0.5, rate=16_000, seed=0):
  wave = np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
  content = audio_io.pcm(wave)
  return audio_io.wav_header(rate, len(content)) + content


def counted(client):
  """What the server has counted, by name."""
  lines = client.get('/metrics').text.splitlines()
  found = dict(line.rsplit(' ', 1) for line in lines if not line.startswith('#'))
  return {name: float(value) for name, value in found.items()}


def until(condition):
  last = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < last
    time.sleep(0.01)


@contextlib.contextmanager
def serving(talk, keys=(), **changes):
  """A server, and a client of it."""
  changes = {'answer_seconds': _PATIENCE} | changes
  made = service.Service(talk, dataclasses.replace(limits.Limits(), **changes))
  running = server.Server(made, '127.0.0.1', keys, warm=False)
  listener = socket.create_server(('127.0.0.1', 0), backlog=256)
  thread = threading.Thread(target=running.serve_on, args=[listener], daemon=True)
  thread.start()
  port = listener.getsockname()[1]
  try:
    with httpx.Client(base_url=f'http://127.0.0.1:{port}', timeout=_PATIENCE) as client:
      while client.get('/readyz').status_code != 200:
        time.sleep(0.01)
      client.service, client.server, client.port = made, running, port
      yield client
  finally:
    running.should_exit = True
    thread.join(60)
    assert not thread.is_alive()
