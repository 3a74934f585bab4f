"""Time, and how much of it went into compilation, which is paid but once."""

import time
from typing import NamedTuple, Self

import jax

_COMPILATION = '/jax/core/compile/'  # what JAX calls tracing, lowering and compiling


class Lap(NamedTuple):
  """Seconds since a stopwatch was started.

  Attributes:
    seconds: all of them.
    compiling: those in which JAX compiled.
  """

  seconds: float
  compiling: float

  @property
  def running(self) -> float:
    """Seconds that are left when all is compiled."""
    return self.seconds - self.compiling


class Stopwatch:
  """Runs while it is entered."""

  def __enter__(self) -> Self:
    self._spans: list[tuple[float, float]] = []
    jax.monitoring.register_event_time_span_listener(self._note)
    self._begin = time.time()  # the clock of JAX's events
    return self

  def __exit__(self, *_) -> None:
    jax.monitoring.unregister_event_time_span_listener(self._note)

  def _note(self, event: str, begin: float, end: float, **_) -> None:
    if event.startswith(_COMPILATION):
      # What lies within another stage is told before it, and must not count twice.
      self._spans = [span for span in self._spans if span[0] < begin]
      self._spans.append((begin, end))

  def lap(self) -> Lap:
    """The time so far."""
    return Lap(time.time() - self._begin, sum(end - begin for begin, end in self._spans))
