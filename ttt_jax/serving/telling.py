"""Answers as HTTP carries them: server-sent events, sound, text, or one JSON object."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import audio_io
from ttt_jax.sampling import events as events_lib
from ttt_jax.sampling import session as session_lib
from ttt_jax.serving import hearing, problems
from ttt_jax.serving import service as service_lib

EVENTS, TEXT = 'text/event-stream', 'text/plain'
_SOUNDS = (hearing.WAV, hearing.PCM)
_OFFERS = {
  'speak': (hearing.WAV, hearing.PCM, EVENTS, hearing.JSON),
  'transcribe': (hearing.JSON, EVENTS, TEXT),
  'answer': (hearing.JSON, EVENTS, hearing.WAV, hearing.PCM, TEXT),
}
_FAILURES = {
  'late': (504, 'time is up'),
  'failed': (500, 'the engine failed'),
  'silent': (500, 'the codec could make no sound of the answer'),
}


class BrokenError(Exception):
  """An answer ends before its end, in a form that has no word for that."""


def wanted(task: str, accept: str) -> str:
  """The form of an answer, by the Accept header; the first that a task offers if it is free.

  Raises:
    Problem: none is offered.
  """
  offers = _OFFERS[task]
  for name in accept.lower().split(','):
    kind = name.split(';')[0].strip()
    if kind in offers:
      return kind
    for offer in offers:
      if kind in ('*/*', offer.split('/')[0] + '/*'):
        return offer
  raise problems.Problem(406, f'of this there is {", ".join(offers)}')


def sounds(task: str, form: str) -> bool:
  """Whether sound is made of an answer."""
  return form != TEXT and session_lib.makes_sound(task)


def content_type(form: str, rate: int | None) -> str:
  """What the header says of a form; `rate` is that of the sound, if any is made."""
  if form == hearing.PCM:
    return f'{form};rate={rate}'
  return f'{form}; charset=utf-8' if form in (EVENTS, TEXT) else form


async def whole(answer: service_lib.Answer, rate: int | None) -> dict[str, Any]:
  """All of it as one object; `rate` as for `content_type`.

  Raises:
    Problem: it did not come to an end.
  """
  text, sound, complete = '', b'', True
  async for event, pieces in answer:
    if event.kind in _FAILURES:
      raise problems.Problem(*_FAILURES[event.kind])
    text += ''.join(piece.text for piece in pieces)
    sound += b''.join(audio_io.pcm(piece.wave) for piece in pieces)
    complete = event.complete
  wav = _base64(audio_io.wav_header(rate, len(sound)) + sound) if sound else None
  told = {'text': text, 'wav': wav, 'sound_seconds': answer.sound}
  return told | {'seconds': round(answer.seconds, 4), 'complete': complete}


async def pieces(
  answer: service_lib.Answer,
  form: str,
  rate: int | None,
  vocabulary: vocabulary_lib.Vocabulary,
  blocks: bool,
) -> AsyncIterator[bytes]:
  """It as it comes, in any form but JSON; events tell of blocks too, if asked.

  Raises:
    BrokenError: it did not come to an end, and the form has no word for that.
  """
  if form == hearing.WAV:
    yield audio_io.wav_header(rate)
  async with contextlib.aclosing(aiter(answer)) as whole_of_it:
    async for news in whole_of_it:
      if form == EVENTS:
        for name, content in _events(news, answer, vocabulary, blocks):
          yield event(name, content)
        continue
      if news.event.kind in _FAILURES:
        raise BrokenError
      for piece in news.pieces:
        content = audio_io.pcm(piece.wave) if form in _SOUNDS else piece.text.encode()
        if content:
          yield content


def event(name: str, content: dict[str, Any]) -> bytes:
  """A server-sent event. JSON has no line breaks of its own."""
  return f'event: {name}\ndata: {json.dumps(content)}\n\n'.encode()


def _events(news: service_lib.News, answer, vocabulary, blocks: bool):
  told, kind = news.event, news.event.kind
  if kind in _FAILURES:
    yield 'error', {'error': _FAILURES[kind][1]}
  if blocks and kind in ('draft', 'audio'):
    yield 'block', {'codes': _codes(told.tokens, vocabulary), 'final': kind == 'audio'}
  if kind == 'text':
    text = ''.join(piece.text for piece in news.pieces)
    yield 'text', {'text': text, 'tokens': len(told.tokens), 'mark': _mark(told, vocabulary)}
  for piece in news.pieces:
    if piece.kind == 'text' and kind != 'text':  # what was held back until now
      yield 'text', {'text': piece.text, 'tokens': 0, 'mark': None}
    elif len(piece.wave):
      yield 'audio', {'pcm': _base64(audio_io.pcm(piece.wave))}
    elif piece.kind == 'end':
      yield 'end', {}
    elif piece.kind == 'done':
      times = {'seconds': answer.seconds, 'sound_seconds': answer.sound}
      rounded = {name: round(value, 4) for name, value in times.items()}
      first = None if answer.first is None else round(answer.first, 4)
      yield 'done', {'complete': piece.complete, 'first_sound': first} | rounded


def _mark(told: events_lib.Event, vocabulary: vocabulary_lib.Vocabulary) -> str | None:
  """What the last token stands for, where it is no text: 'sound' follows, or the 'end'."""
  last = int(told.tokens[-1])
  if last in (vocabulary.begin_audio, vocabulary.begin_last):
    return 'sound'
  return 'end' if last == vocabulary.turn_end else None


def _codes(tokens: np.ndarray, vocabulary: vocabulary_lib.Vocabulary) -> list[int | str | None]:
  """Numbers of codes; null where nothing is revealed yet, 'end' for the end of the span."""
  out: list[int | str | None] = []
  for token in tokens.tolist():
    if token == vocabulary.mask:
      out.append(None)
    else:
      out.append('end' if vocabulary.is_end(token) else token - vocabulary.codebook_start)
  return out


def _base64(content: bytes) -> str:
  return base64.b64encode(content).decode('ascii')
