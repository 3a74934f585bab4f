"""Answers piece by piece, in the forms that people use: characters and samples."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ttt_jax import assets as assets_lib
from ttt_jax.sampling import events, writing

_SILENCE, _NO_CODES = np.zeros(0, np.float32), np.zeros(0, np.int32)


class Piece(NamedTuple):
  """What has become final of an answer: together they are a `session.Reply`.

  Attributes:
    kind: 'text', 'audio', 'end' of a span of audio, or 'done'.
    text: a piece of text; empty in the other kinds.
    wave: float32 [S], a piece of audio; likewise, and where no sound is made.
    codes: int32 [T], what is new of a span of audio; likewise. Its sound may come later.
    complete: false in 'done' where a limit ended the answer.
  """

  kind: str
  text: str = ''
  wave: np.ndarray = _SILENCE
  codes: np.ndarray = _NO_CODES
  complete: bool = True


class Pieces:
  """Makes them of the events of one answer."""

  def __init__(self, assets: assets_lib.Assets, sound: bool = True):
    """Begins with nothing.

    Args:
      assets: of the model.
      sound: whether sound is made of codes, which takes a codec that can 'stream'.
    """
    self._assets, self._sound, self._decoder = assets, sound, None
    self._text = writing.Writing(assets.tokenizer)

  def push(self, event: events.Event) -> Iterator[Piece]:
    """The pieces that an event makes certain; none of a draft."""
    if event.kind == 'draft':
      return
    if written := self._write(event):
      yield Piece('text', text=written)
    codes = _NO_CODES
    if event.kind == 'audio':
      codes = self._assets.vocabulary.to_codes(event.tokens)
    wave = self._wave(event.kind, codes)
    if len(wave) or len(codes):
      yield Piece('audio', wave=wave, codes=codes)
    if event.kind in ('end', 'done'):
      yield Piece(event.kind, complete=event.complete)

  def _write(self, event: events.Event) -> str:
    return self._text.push(event.tokens) if event.kind == 'text' else self._text.flush()

  def _wave(self, kind: str, codes: np.ndarray) -> np.ndarray:
    if not self._sound or kind not in ('audio', 'end'):
      return _SILENCE
    self._decoder = self._decoder or self._assets.codec.decoder()
    return self._decoder.push(codes) if kind == 'audio' else self._decoder.flush()
