"""Where the time of a run goes."""

import time
from collections.abc import Callable

PARTS = ('step', 'start', 'compile', 'data', 'save', 'evaluate', 'rest')


class Clock:
  """Gives every second since it was made to one part of the run.

  While the devices work on a step, time is the step's, whatever the host does meanwhile: it
  makes the next batch, dispatches the next step and reads the results of the one before.
  All other time is lost, to what the host was doing:

    start    laying out the state, and filling or restoring it
    compile  the first call of the step: tracing, compiling and dispatching it
    data     waiting for a batch, and sending it to the devices
    save     saving a checkpoint, as far as it keeps the host
    evaluate judging the model
    rest     all else: dispatching, reports, traces

  Attributes:
    seconds: of each part, from when the clock was made to the end of the last noted step.
  """

  def __init__(self, now: Callable[[], float] = time.monotonic):
    """Starts, in the part `start`; `now` gives seconds."""
    self.now = now
    self.seconds = dict.fromkeys(PARTS, 0.0)
    self._known = now()  # all time before is in `seconds`
    self._begun = self._known
    self._entered = [(self._known, 'start')]  # parts of the host since then, with their begins

  def enter(self, part: str) -> float:
    """The host goes over to another part; returns the time."""
    self._entered.append((self.now(), part))
    return self._entered[-1][0]

  def worked(self, begin: float, end: float) -> None:
    """Notes a step, done by the devices after those noted before.

    Args:
      begin: when the host called it; the devices may have been busy with the one before.
      end: when the devices were done.
    """
    begin, end = max(begin, self._known), max(end, self._known)
    ends = [start for start, _ in self._entered[1:]] + [end]
    for (start, part), stop in zip(self._entered, ends):
      self.seconds[part] += max(0.0, min(stop, begin) - max(start, self._known))
    self.seconds['step'] += end - begin
    self._known = end
    while len(self._entered) > 1 and self._entered[1][0] <= end:
      self._entered.pop(0)

  def settle(self) -> None:
    """Gives all time up to now to its part; no step may be under way."""
    now = self.now()
    self.worked(now, now)

  @property
  def age(self) -> float:
    """Seconds since the clock was made."""
    return self.now() - self._begun

  @property
  def goodput(self) -> float:
    """Share of the time since the clock was made in which the devices worked on steps."""
    return self.seconds['step'] / max(sum(self.seconds.values()), 1e-9)

  def __str__(self) -> str:
    whole = sum(self.seconds.values())
    shares = (f'{part} {value / whole:.1%}' for part, value in self.seconds.items())
    return f'{whole:.1f} s: {", ".join(shares)}'
