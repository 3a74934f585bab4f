"""A session behind an engine: requests in, pieces of answers out, within limits."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import numpy as np
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.sampling import events as events_lib
from ttt_jax.sampling import pieces as pieces_lib
from ttt_jax.sampling import rows as rows_lib
from ttt_jax.sampling import session as session_lib
from ttt_jax.serving import engine as engine_lib
from ttt_jax.serving import limits as limits_lib
from ttt_jax.serving import metrics as metrics_lib
from ttt_jax.serving import problems

# What the codec must be able to do for a task, in whatever form it is asked and answered.
_NEEDS = {
  assets_lib.SPEAK: 'stream',
  assets_lib.TRANSCRIBE: 'encode',
  assets_lib.ANSWER: None,
}
# Beside the engine's. Who is heard does not wait for who begins to be, and the other way round.
_SOUND_THREADS = 2  # that turn tokens to samples
_HEARING_THREADS = 2  # that turn samples to tokens


class News(NamedTuple):
  """What is new of an answer.

  Attributes:
    event: of the engine; or the last one: 'late' where time is up, 'silent' where the codec
      could make no sound of the answer.
    pieces: what it makes certain.
  """

  event: events_lib.Event
  pieces: list[pieces_lib.Piece]


class Answer:
  """One answer under way; its news come by iteration, once.

  Attributes:
    first: seconds from the request to the first sound; None before it.
    sound: seconds of sound so far.
  """

  def __init__(self, service: 'Service', sound: bool):
    """Gets in the queue; raises what `Engine.reserve` raises.

    Args:
      service: of which it is asked.
      sound: whether its codes are made sound.
    """
    self._service, self._begin = service, time.monotonic()
    self._loop = asyncio.get_running_loop()
    self._queue: asyncio.Queue[list[events_lib.Event]] = asyncio.Queue()
    self._pieces = pieces_lib.Pieces(service.session.assets, sound)
    self._ticket = service.engine.reserve()
    self.first: float | None = None
    self.sound = 0.0

  def ask(self, request: rows_lib.Request, drafts: bool) -> None:
    """Its news may come from now on; raises what `Engine.submit` raises."""
    self._service.engine.submit(request, self._listen, drafts, self._ticket)

  def leave(self) -> None:
    """Makes room for others."""
    self._service.engine.cancel(self._ticket)

  @property
  def seconds(self) -> float:
    """Since the request."""
    return time.monotonic() - self._begin

  def _listen(self, events: list[events_lib.Event]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
      self._loop.call_soon_threadsafe(self._queue.put_nowait, events)

  async def __aiter__(self) -> AsyncIterator[News]:
    try:
      async for event in self._events():
        try:
          pieces = await self._pieces_of(event)
        except Exception:  # whatever a codec does wrong: who asked is to be told
          logging.exception('the codec failed; an answer is lost')
          yield News(_last('silent'), [])
          return
        for piece in pieces:
          self._count(piece)
        if event.kind == 'done':
          self._service.metrics.spoke(self.first, self.seconds, self.sound)
        yield News(event, pieces)
    finally:
      self.leave()

  async def _events(self) -> AsyncIterator[events_lib.Event]:
    last = self._begin + self._service.limits.answer_seconds
    while True:
      try:
        events = await asyncio.wait_for(self._queue.get(), max(0, last - time.monotonic()))
      except TimeoutError:
        events = [_last('late')]
      for event in events:
        yield event
      if events[-1].kind in ('done', 'failed', 'late'):
        return

  async def _pieces_of(self, event: events_lib.Event) -> list[pieces_lib.Piece]:
    if event.kind in ('failed', 'late'):
      return []
    if event.kind in ('audio', 'end'):  # takes longer than telling it to a thread
      return await self._service.sound(lambda: list(self._pieces.push(event)))
    return list(self._pieces.push(event))

  def _count(self, piece: pieces_lib.Piece) -> None:
    if len(piece.wave):
      self.first = self.first or self.seconds
      self.sound += len(piece.wave) / self._service.session.assets.codec.sample_rate


def _last(kind: str) -> events_lib.Event:
  return events_lib.Event(kind, events_lib.done(False).tokens, False)


class Service:
  """What the routes call.

  Attributes:
    session: the model.
    limits: on what is asked.
    metrics: what is counted.
    engine: answers.
  """

  def __init__(self, session: session_lib.Session, limits: limits_lib.Limits):
    """Starts nothing."""
    self.session, self.limits, self.metrics = session, limits, metrics_lib.Metrics()
    sampling = session.config.sampling
    self.engine = engine_lib.Engine(
      session.decoder, sampling.batch, limits.queue, sampling.max_prompt, self.metrics
    )
    self._mouths = concurrent.futures.ThreadPoolExecutor(_SOUND_THREADS, 'sound')
    self._ears = concurrent.futures.ThreadPoolExecutor(_HEARING_THREADS, 'hearing')
    self._receiving = 0
    self._open = False

  @property
  def ready(self) -> bool:
    """Whether requests are taken."""
    return self._open and self.engine.alive

  @property
  def healthy(self) -> bool:
    """Whether requests are taken, or will be, or were until it was closed."""
    return self.engine.alive or not self._open

  @property
  def refused(self) -> dict[str, str]:
    """The tasks that cannot be answered, whatever is said, and why."""
    assets, refused = self.session.assets, {}
    for task, ability in _NEEDS.items():
      try:
        assets.prompt(task)
        if ability:
          assets.codec.require(ability)
      except errors.UserError as error:
        refused[task] = str(error)
    return refused

  def check(self) -> None:
    """Warns of the tasks that cannot be answered.

    Raises:
      UserError: that are all of them.
    """
    refused = [f'{task!r} cannot be answered: {why}' for task, why in self.refused.items()]
    if len(refused) == len(_NEEDS):
      raise errors.UserError('there is nothing to serve. ' + '; '.join(refused))
    for one in refused:
      logging.warning('%s', one)

  def start(self, warm: bool) -> None:
    """Begins to answer; `warm`: after everything that is usual has been compiled."""
    self.engine.start(warm)
    codec = self.session.assets.codec
    if warm and 'stream' in codec.abilities:
      codec.decode(np.zeros(1, np.int32))
    self._open = True

  def close(self) -> None:
    """Takes nothing more, and returns when what was taken is answered."""
    self._open = False
    self.engine.close()
    self._mouths.shutdown()
    self._ears.shutdown()

  async def sound(self, function: Callable[[], list[pieces_lib.Piece]]):
    """Calls what makes sound, which takes long, on one of the threads for that."""
    return await asyncio.get_running_loop().run_in_executor(self._mouths, function)

  @contextlib.contextmanager
  def receiving(self):
    """Gives a function to be told of each part of a body, by its bytes.

    It raises Problem where a body, or all of them together, are too large.
    """
    mine = 0

    def count(size: int) -> None:
      nonlocal mine
      mine += size
      self._receiving += size
      if mine > self.limits.body:
        raise problems.Problem(413, f'the body is larger than {self.limits.body} bytes')
      if self._receiving > self.limits.bodies:
        raise problems.Problem(503, 'too much is being received', {'retry-after': '5'})

    try:
      yield count
    finally:
      self._receiving -= mine

  def settings(self, changes: dict[str, int | float]) -> config_lib.Sampling:
    """Those of the session with `changes`, of `config.OF_A_REQUEST`.

    Raises:
      Problem: one is impossible, or beyond what the server allows.
    """
    own = self.session.config.sampling
    for name in ('max_text', 'max_audio'):
      if changes.get(name, 0) > getattr(own, name):
        raise problems.Problem(422, f'{name} is {getattr(own, name)} at most')
    try:
      return dataclasses.replace(own, **changes)
    except errors.UserError as error:
      raise problems.Problem(422, str(error).replace('config.sampling.', '')) from error

  async def answer(
    self,
    task: str,
    said: str | Callable[[], session_lib.Recording],
    voice: int,
    seed: int,
    settings: config_lib.Sampling,
    drafts: bool,
    sound: bool,
  ) -> Answer:
    """Asks the engine; `Session.reply` has `task`, `said`, `voice` and `sound`.

    A recording is what gives it, called when there is a place in the queue.

    Raises:
      Problem: the model cannot be asked that, or too many ask.
    """
    with _told(), contextlib.ExitStack() as undo:
      answer = Answer(self, sound)
      undo.callback(answer.leave)
      prompt = await self._prompt(task, said, voice, 'stream' if sound else None)
      answer.ask(self.session.decoder.request(prompt, seed, settings), drafts)
      undo.pop_all()
      return answer

  async def _prompt(self, task: str, said, voice: int, ability: str | None) -> np.ndarray:
    if isinstance(said, str):  # soon done: no reason to wait behind recordings
      return self.session.prompt(task, said, voice, ability)

    def heard():
      return self.session.prompt(task, said(), voice, ability)

    async with asyncio.timeout(self.limits.answer_seconds):
      return await asyncio.get_running_loop().run_in_executor(self._ears, heard)


@contextlib.contextmanager
def _told():
  """Raises as Problem why nothing can be answered."""
  try:
    yield
  except errors.UserError as error:
    raise problems.Problem(422, str(error)) from error
  except engine_lib.BusyError as error:
    raise problems.Problem(429, str(error), {'retry-after': str(error.seconds)}) from error
  except engine_lib.ClosedError as error:
    raise problems.Problem(503, 'no more requests are taken') from error
  except TimeoutError as error:
    raise problems.Problem(504, 'time is up') from error
