"""A document taken apart again: who says what."""

import bisect
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ttt_jax import chat


class Piece(NamedTuple):
  """Text, or one audio span, within a turn.

  Attributes:
    role: of the turn; '' where there is none, or none that is known.
    turn: its number, so that turns of one role in a row are told apart.
    start, end: positions in the document; `end` is exclusive.
    audio: it is an audio span.
  """

  role: str
  turn: int
  start: int
  end: int
  audio: bool


class Reader:
  """Finds the pieces of documents that a template may have made, or anything else."""

  def __init__(self, template: chat.Template):
    """Takes the template whose turns are looked for."""
    self._start, self._end = template.vocabulary.turn_start, template.vocabulary.turn_end
    self._heads = {role: template.head(role) for role in chat.ROLES}
    self._longest = max(map(len, self._heads.values()))

  def pieces(self, tokens: np.ndarray, spans: np.ndarray) -> Iterator[Piece]:
    """Pieces in order; marks of turns belong to none.

    Args:
      tokens: int [n].
      spans: int [spans, 2], its audio spans.
    """
    ids, runs = tokens.tolist(), spans.tolist()
    edges = [0, *np.flatnonzero(tokens == self._start).tolist(), len(ids)]
    for turn, (start, stop) in enumerate(zip(edges, edges[1:])):
      role, head = self._head(ids[start : start + self._longest]) if turn else ('', 0)
      start += head
      end = ids.index(self._end, start, stop) if self._end in ids[start:stop] else stop
      yield from _within(role, turn, start, end, runs)
      yield from _within('', turn, end + 1, stop, runs)

  def _head(self, tokens: list[int]) -> tuple[str, int]:
    """The role of a turn, and of how many tokens its head is."""
    for role, head in self._heads.items():
      if tokens[: len(head)] == head:
        return role, len(head)
    return '', 1


def _within(
  role: str, turn: int, start: int, end: int, spans: list[list[int]]
) -> Iterator[Piece]:
  at = start
  for place in range(bisect.bisect_left(spans, [start, 0]), len(spans)):
    begin, stop = spans[place]
    if begin >= end:
      break
    if at < begin:
      yield Piece(role, turn, at, begin, False)
    yield Piece(role, turn, begin, stop, True)
    at = stop
  if at < end:
    yield Piece(role, turn, at, end, False)
