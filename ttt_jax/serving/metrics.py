"""What a server counts, in the text format of Prometheus."""

import bisect
import collections
import threading
from collections.abc import Callable, Iterable

from ttt_jax.sampling import events as events_lib

CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'
_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_FACTORS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 5.0)


class _Histogram:
  def __init__(self, bounds: tuple[float, ...]):
    self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

  def add(self, value: float) -> None:
    self.counts[bisect.bisect_left(self.bounds, value)] += 1
    self.sum += value

  def lines(self, name: str) -> Iterable[str]:
    total = 0
    for bound, count in zip((*self.bounds, '+Inf'), self.counts):
      total += count
      yield f'{name}_bucket{{le="{bound}"}} {total}'
    yield f'{name}_sum {self.sum:.6f}'
    yield f'{name}_count {total}'


class Metrics:
  """Counted by any thread."""

  def __init__(self):
    """All is 0."""
    self._lock = threading.Lock()
    self._answers: collections.Counter[tuple[str, int]] = collections.Counter()
    self._tokens: collections.Counter[str] = collections.Counter()
    self._passes = self._rows = self._failures = 0
    self._first, self._factor = _Histogram(_SECONDS), _Histogram(_FACTORS)
    self._whole = _Histogram(_SECONDS)

  def passed(self, rows: int) -> None:
    """A pass of the network, and the answers that it served."""
    with self._lock:
      self._passes += 1
      self._rows += rows

  def made(self, events: Iterable[events_lib.Event]) -> None:
    """Tokens that have become final."""
    with self._lock:
      for event in events:
        if event.kind in ('text', 'audio'):
          self._tokens[event.kind] += len(event.tokens)

  def failed(self) -> None:
    """A batch was lost."""
    with self._lock:
      self._failures += 1

  def answered(self, task: str, status: int) -> None:
    """A request was answered with an HTTP status."""
    with self._lock:
      self._answers[task, status] += 1

  def spoke(self, first: float | None, seconds: float, sound: float) -> None:
    """An answer ended: time to its first sound, if any, in all, and seconds of sound."""
    with self._lock:
      self._whole.add(seconds)
      if first is not None:
        self._first.add(first)
        self._factor.add(seconds / sound)

  def text(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> str:
    """All of it; `gauges` are read now: help and value by name."""
    lines = []

    def tell(name: str, kind: str, about: str, values: Iterable[str]) -> None:
      lines.extend([f'# HELP ttt_{name} {about}', f'# TYPE ttt_{name} {kind}', *values])

    for name, (about, read) in gauges.items():
      tell(name, 'gauge', about, [f'ttt_{name} {read():g}'])
    with self._lock:
      counters = {
        'passes_total': ('Passes of the network.', self._passes),
        'rows_total': ('Answers served by these passes, added up.', self._rows),
        'failures_total': ('Batches that were lost to an error.', self._failures),
      }
      for name, (about, value) in counters.items():
        tell(name, 'counter', about, [f'ttt_{name} {value}'])
      made = [f'ttt_tokens_total{{kind="{k}"}} {self._tokens[k]}' for k in ('audio', 'text')]
      tell('tokens_total', 'counter', 'Tokens that answers were made of.', made)
      answers = [
        f'ttt_requests_total{{task="{task}",status="{status}"}} {count}'
        for (task, status), count in sorted(self._answers.items())
      ]
      tell('requests_total', 'counter', 'Requests by what was answered.', answers)
      for name, about, histogram in (
        ('first_sound_seconds', 'From the request to the first sound.', self._first),
        ('answer_seconds', 'From the request to the end of the answer.', self._whole),
        ('real_time_factor', 'Seconds of work by seconds of sound.', self._factor),
      ):
        tell(name, 'histogram', about, histogram.lines(f'ttt_{name}'))
    return '\n'.join(lines) + '\n'
