"""One batch for all who ask: a thread that owns what is on the device.

Requests are taken in the order in which they come, as soon as a place is free; passes of the
network go on meanwhile for the others, and each is told the events of its own answer.
"""

import collections
import itertools
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from absl import logging

from ttt_jax.sampling import decoder as decoder_lib
from ttt_jax.sampling import events as events_lib
from ttt_jax.sampling import rows as rows_lib
from ttt_jax.serving import metrics as metrics_lib

_READ = 2048  # tokens of prompts that are read between two passes for the others
_FAILED = events_lib.Event('failed', events_lib.done(False).tokens, False)

Listener = Callable[[list[events_lib.Event]], None]


class BusyError(Exception):
  """As many wait as may wait.

  Attributes:
    seconds: after which it is worth while to ask again.
  """

  def __init__(self, seconds: int):
    super().__init__(f'all places are taken; ask again in {seconds} s')
    self.seconds = seconds


class ClosedError(Exception):
  """No more requests are taken."""


class _Asked(NamedTuple):
  request: rows_lib.Request
  listen: Listener
  drafts: bool


class Engine:
  """Answers the requests of many threads; see `submit`.

  A listener is called on the engine's thread with some events at a time and must return at
  once. The last event is 'done', or 'failed' where the engine could not go on. It goes on with
  the requests that come after, unless it cannot even begin anew: then its thread ends.
  """

  def __init__(
    self,
    decoder: decoder_lib.Decoder,
    batch: int,
    queue: int,
    longest: int,
    metrics: metrics_lib.Metrics,
  ):
    """Begins no thread yet.

    Args:
      decoder: nobody else uses it meanwhile.
      batch: answers at a time.
      queue: requests that may wait for a place.
      longest: tokens of prompts for which there is room from the start.
      metrics: what is counted.
    """
    self._places, self._queue, self._metrics = decoder.places(batch, longest), queue, metrics
    self._size, self._longest = self._places.free, longest
    self._waiting: collections.OrderedDict[int, _Asked] = collections.OrderedDict()
    self._running: dict[int, _Asked] = {}
    self._coming: set[int] = set()  # tickets whose requests are still being made
    self._left: set[int] = set()
    self._tickets = itertools.count()
    self._changed = threading.Condition()
    self._closing = False
    self._seconds = 1.0  # of an answer, on average
    self._begun: dict[int, float] = {}
    self._thread = threading.Thread(target=self._work, name='engine', daemon=True)

  def start(self, warm: bool) -> None:
    """Begins to answer; `warm`: when everything that is usual has been compiled."""
    if warm:
      self._places.warm(self._longest)
    self._thread.start()

  @property
  def alive(self) -> bool:
    """Whether requests are answered."""
    return self._thread.is_alive()

  @property
  def load(self) -> tuple[int, int]:
    """Requests that wait, and answers under way."""
    with self._changed:
      return len(self._coming) + len(self._waiting), len(self._running)

  def reserve(self) -> int:
    """Takes a place in the queue for a request that is still to be made.

    Returns:
      A ticket for `submit` or `cancel`.

    Raises:
      BusyError: too many wait already.
      ClosedError: `close` was called, or nothing can be answered any more.
    """
    with self._changed:
      if self._closing:
        raise ClosedError
      waiting, free = len(self._coming) + len(self._waiting), self._size - len(self._running)
      if waiting >= self._queue + free:
        raise BusyError(max(1, round((waiting / self._size + 1) * self._seconds)))
      ticket = next(self._tickets)
      self._coming.add(ticket)
      return ticket

  def submit(
    self,
    request: rows_lib.Request,
    listen: Listener,
    drafts: bool = False,
    ticket: int | None = None,
  ) -> int:
    """Takes a request of `decoder.request`.

    Args:
      request: what is asked.
      listen: hears the events.
      drafts: whether these are to include drafts of blocks.
      ticket: of `reserve`; None: it gets in the queue now.

    Returns:
      The ticket, for `cancel`.

    Raises:
      BusyError: as `reserve` does.
      ClosedError: likewise.
    """
    with self._changed:
      ticket = self.reserve() if ticket is None else ticket
      if self._closing:
        raise ClosedError
      self._coming.discard(ticket)
      self._waiting[ticket] = _Asked(request, listen, drafts)
      self._changed.notify()
      return ticket

  def cancel(self, ticket: int) -> None:
    """Ends an answer that nobody waits for any more; nothing is told after the return."""
    with self._changed:
      self._coming.discard(ticket)
      self._waiting.pop(ticket, None)
      if self._running.pop(ticket, None):
        self._left.add(ticket)
        self._changed.notify()

  def close(self) -> None:
    """Takes no more requests, and returns when those that were taken are answered."""
    with self._changed:
      self._closing = True
      self._changed.notify()
    if self._thread.is_alive():
      self._thread.join()

  def _work(self) -> None:
    while self._wait():
      went = _tried(self._turn, 'the engine failed; answers under way are lost')
      if not (went or _tried(self._fail, 'the engine failed for good; nothing is answered')):
        self._give_up()
        return

  def _wait(self) -> bool:
    """Waits for something to do; false where there will be nothing any more."""
    with self._changed:
      while not (self._waiting or self._running or self._left or self._closing):
        self._changed.wait()
      return bool(self._waiting or self._running or not self._closing)

  def _turn(self) -> None:
    """One pass for all who are under way."""
    with self._changed:
      left, self._left = self._left, set()
    self._places.drop(left)
    for ticket in left:
      self._begun.pop(ticket, None)
    with self._changed:
      new = self._next()
      self._running.update(new)
      drafts = {ticket for ticket, asked in self._running.items() if asked.drafts}
    self._begun.update((ticket, time.monotonic()) for ticket in new)
    self._places.admit([(ticket, asked.request) for ticket, asked in new.items()])
    if new:  # what their prompts led to
      self._tell(drafts)
    if len(self._places):
      self._metrics.passed(len(self._places))
      self._places.run(limit=1)
      self._tell(drafts)

  def _next(self) -> dict[int, _Asked]:
    """Those who are admitted now: few where prompts are long, for the others wait."""
    chosen, read = {}, 0
    while self._waiting and len(chosen) < self._places.free:
      ticket, asked = next(iter(self._waiting.items()))
      read += len(asked.request.prompt)
      if chosen and read > _READ:
        break
      chosen[ticket] = self._waiting.pop(ticket)
    return chosen

  def _tell(self, drafts: set[int]) -> None:
    told = collections.defaultdict(list)
    for ticket, event in self._places.events(drafts):
      told[ticket].append(event)
    for ticket, events in told.items():
      self._metrics.made(events)
      with self._changed:
        ended = events[-1].kind == 'done'
        asked = self._running.pop(ticket, None) if ended else self._running.get(ticket)
        if asked:
          _call(asked, events)
      if ended:
        seconds = time.monotonic() - self._begun.pop(ticket)
        self._seconds += 0.1 * (seconds - self._seconds)

  def _fail(self) -> None:
    self._metrics.failed()
    with self._changed:
      asked, self._running = self._running, {}
      self._left.clear()
      for one in asked.values():
        _call(one, [_FAILED])
    self._begun.clear()
    self._places.clear()

  def _give_up(self) -> None:
    with self._changed:
      self._closing = True
      asked = [*self._running.values(), *self._waiting.values()]
      self._running, self._waiting = {}, collections.OrderedDict()
      for one in asked:
        _call(one, [_FAILED])


def _tried(step: Callable[[], None], otherwise: str) -> bool:
  """Whether a step went well; what its error held on the device is free after the return."""
  try:
    step()
  except Exception:  # whatever it was: others must still be answered
    logging.exception('%s', otherwise)
    return False
  return True


def _call(asked: _Asked, events: list[events_lib.Event]) -> None:
  try:
    asked.listen(events)
  except Exception:  # one who cannot hear is no reason to stop for the others
    logging.exception('a listener failed')
