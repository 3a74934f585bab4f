"""What a client hears."""

import base64
import json

import numpy as np

from ttt_jax.codecs import audio_io

EVENTS = {'accept': 'text/event-stream'}


def events_of(lines):
  """(name, content) of each server-sent event."""
  name = None
  for line in lines:
    field, _, value = line.partition(': ')
    if field == 'event':
      name = value
    elif field == 'data':
      yield name, json.loads(value)


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
