"""Answers under way, each in a place of its own, which another takes when it has ended.

This is the loop of all decoding: whole answers, one that is streamed, and a server's.
"""

import dataclasses
from collections.abc import Container, Hashable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ttt_jax.sampling import events as events_lib
from ttt_jax.sampling import passes as passes_lib
from ttt_jax.sampling import rows as rows_lib

NO_LIMIT = 2**30  # of passes


@dataclasses.dataclass
class _Place:
  """An answer under way: who asked for it, where it begins, and what was told of it."""

  key: Hashable
  begin: int
  sent: int


class _Seen(NamedTuple):
  """What the host knows of the rows, as in `rows.Rows`; numpy."""

  live: np.ndarray
  length: np.ndarray
  complete: np.ndarray
  audio: np.ndarray
  block: np.ndarray
  settled: np.ndarray

  @property
  def window(self) -> np.ndarray:
    """Tokens that the next pass must read, as `rows.Rows.window`."""
    return np.where(self.live, self.length - self.settled, 0)


class Places:
  """So many answers at a time.

  places.admit([('a', request)])
  while len(places):
    places.run(limit=1)
    for key, event in places.events():
      ...
  """

  def __init__(self, passes: passes_lib.Passes, size: int, longest: int):
    """All are free.

    Args:
      passes: of one set of parameters.
      size: how many there are, or a few more (`Passes.ways`).
      longest: tokens of prompts for which there is room from the start.
    """
    self._passes, self._least = passes, passes.length(longest)
    self._places: list[_Place | None] = [None] * (-(-size // passes.ways) * passes.ways)
    self.clear()

  def clear(self) -> None:
    """Drops all answers."""
    self._places = [None] * len(self._places)
    self._state = self._known = None  # goes first: there may be no room for both
    self._set(self._passes.empty(len(self._places), self._least))

  def warm(self, longest: int) -> None:
    """Compiles what prompts of up to `longest` tokens need; drops all answers."""
    self.clear()
    self._set(self._passes.warm(self._state, longest))

  def __len__(self) -> int:
    return sum(place is not None for place in self._places)

  @property
  def free(self) -> int:
    """How many more answers there is place for."""
    return len(self._places) - len(self)

  def admit(self, requests: Sequence[tuple[Hashable, rows_lib.Request]]) -> None:
    """Reads prompts, `free` at most; each is known by a key of its own from then on."""
    if not requests:
      return
    self._make_room(max(len(request.prompt) for _, request in requests))
    free = [i for i, place in enumerate(self._places) if place is None][: len(requests)]
    # A few are read one by one, rather than among many rows that are idle.
    together = self._passes.ways if len(free) * 4 <= len(self._places) else len(self._places)
    for first in range(0, len(free), together):
      chosen = free[first : first + together]
      new = requests[first : first + together]
      for i, (key, request) in zip(chosen, new):
        self._places[i] = _Place(key, len(request.prompt), len(request.prompt))
      self._set(self._passes.admit(self._state, [r for _, r in new], chosen, together))

  def run(self, limit: int = NO_LIMIT, replace: bool = False) -> None:
    """Runs passes, at least one if any answer goes on.

    Args:
      limit: the most of them.
      replace: whether to come back as soon as an answer has ended.
    """
    seen = self._look()
    if seen.live.any():
      length = self._passes.length(int(seen.length[seen.live].max()))
      state = self._passes.extended(self._state, length)
      self._set(self._passes.run(state, seen.window, replace, limit))

  def drop(self, keys: Container[Hashable]) -> None:
    """Ends answers that nobody waits for, and frees their places."""
    dropped = np.array([p is not None and p.key in keys for p in self._places])
    if dropped.any():
      rows, cache = self._state
      live = jax.numpy.where(dropped, False, rows.live)
      self._set(passes_lib.State(rows._replace(live=live), cache))
      self._places = [None if gone else p for gone, p in zip(dropped, self._places)]

  def ended(self) -> Iterator[tuple[Hashable, events_lib.Answer]]:
    """Answers that have ended, by their keys; frees their places."""
    seen = self._look()
    for i, place in self._taken():
      if not seen.live[i]:
        self._places[i] = None
        tokens = np.asarray(self._state.rows.tokens[i])[place.begin : seen.length[i]]
        yield place.key, events_lib.Answer(tokens, bool(seen.complete[i]))

  def events(
    self, drafts: Container[Hashable] = ()
  ) -> Iterator[tuple[Hashable, events_lib.Event]]:
    """What has become final since the last call, by the keys; frees places that ended.

    Args:
      drafts: keys of those who also want to see the block that is being revealed.
    """
    seen, tokens = self._look(), np.asarray(self._state.rows.tokens)
    for i, place in self._taken():
      end = int((seen.block if seen.audio[i] else seen.length)[i])
      for event in events_lib.of_tokens(tokens[i, place.sent : end], self._passes.vocabulary):
        yield place.key, event
      place.sent = end
      if not seen.live[i]:
        self._places[i] = None
        yield place.key, events_lib.done(bool(seen.complete[i]))
      elif seen.audio[i] and place.key in drafts:
        yield place.key, events_lib.Event('draft', tokens[i, end : seen.length[i]])

  def _taken(self) -> list[tuple[int, _Place]]:
    return [(i, place) for i, place in enumerate(self._places) if place is not None]

  def _make_room(self, longest: int) -> None:
    length = self._passes.length(longest)
    if not len(self) and self._state.cache.length > max(length, self._least):
      self.clear()  # what a long answer needed is given back
    self._set(self._passes.extended(self._state, length))

  def _set(self, state: passes_lib.State) -> None:
    self._state, self._known = state, None

  def _look(self) -> _Seen:
    if self._known is None:
      rows = self._state.rows
      self._known = _Seen(*jax.device_get([getattr(rows, name) for name in _Seen._fields]))
    return self._known
