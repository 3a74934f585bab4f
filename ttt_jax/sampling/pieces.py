"""Answers piece by piece, in the forms that people use: characters and samples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ttt_jax import assets as assets_lib
from ttt_jax.sampling import events, writing

_SILENCE = np.zeros(0, np.float32)


class Piece(NamedTuple):
  """What has become final of an answer: together they are a `session.Reply`.

  Attributes:
    kind: 'text', 'audio', 'end' of a span of audio, or 'done'.
    text: a piece of text; empty in the other kinds.
    wave: float32 [S], a piece of audio; likewise.
    complete: false in 'done' where a limit ended the answer.
  """

  kind: str
  text: str = ''
  wave: np.ndarray = _SILENCE
  complete: bool = True


class Pieces:
  """Makes them of the events of one answer."""

  def __init__(self, assets: assets_lib.Assets):
    """Begins with nothing."""
    self._assets, self._sound = assets, None
    self._text = writing.Writing(assets.tokenizer)

  def push(self, event: events.Event) -> Iterator[Piece]:
    """The pieces that an event makes certain; none of a draft."""
    if event.kind == 'draft':
      return
    if written := self._write(event):
      yield Piece('text', text=written)
    wave = self._wave(event)
    if len(wave):
      yield Piece('audio', wave=wave)
    if event.kind in ('end', 'done'):
      yield Piece(event.kind, complete=event.complete)

  def _write(self, event: events.Event) -> str:
    return self._text.push(event.tokens) if event.kind == 'text' else self._text.flush()

  def _wave(self, event: events.Event) -> np.ndarray:
    if event.kind == 'audio':
      self._sound = self._sound or self._assets.codec.decoder()
      return self._sound.push(self._assets.vocabulary.to_codes(event.tokens))
    return self._sound.flush() if event.kind == 'end' else _SILENCE
