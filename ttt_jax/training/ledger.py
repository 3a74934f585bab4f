"""Where the time of a run went, over all its starts: what was useful, and what was lost.

The first process writes a line to `times.jsonl` in the folder of the run with each report.
"""

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from absl import logging

from ttt_jax import json_file, json_lines
from ttt_jax.training import clock as clock_lib

FILE = 'times.jsonl'
# Beside the parts of a process's clock: steps that were taken again since no checkpoint had
# them, and the time from the last report of a process to the start of the next.
REDONE, DOWN = 'redone', 'down'


class Ledger:
  """Writes the lines of one process."""

  def __init__(
    self,
    workdir: str | pathlib.Path,
    clock: clock_lib.Clock,
    start: int,
    now: Callable[[], float] = time.time,
  ):
    """Writes nothing yet.

    Args:
      workdir: folder of the run.
      clock: of this process.
      start: steps done when it began.
      now: seconds, the same for all processes.
    """
    self._path, self._clock, self._now = pathlib.Path(workdir, FILE), clock, now
    # Time before was spent too: filling the state comes before the step is known.
    begun = now() - clock.age
    self._about = {'process': f'{os.getpid()}-{begun:.3f}', 'begun': begun, 'start': start}

  def note(self, step: int) -> None:
    """Writes how far the process is, and where its time went; a full disk loses the line."""
    line = self._about | {'time': self._now(), 'step': step, 'seconds': self._clock.seconds}
    try:
      json_lines.append(self._path, line)
    except OSError as error:
      logging.error('ALARM: where the time went until step %d is lost: %s', step, error)


def spent(workdir: str | pathlib.Path) -> dict[str, float]:
  """Seconds of all starts of a run, by what they were spent on; empty if nothing is known.

  `step` is useful time. All other parts are lost: those of `clock.PARTS`, REDONE and DOWN.
  A clock that was set back between two starts makes DOWN too short, never less than 0.
  """
  processes = _read(workdir)
  total = dict.fromkeys((*clock_lib.PARTS, REDONE, DOWN), 0.0) if processes else {}
  kept, after = math.inf, None  # steps that no later start has taken again; the next start
  for lines in reversed(processes):
    for part, seconds in lines[-1]['seconds'].items():
      total[part] += seconds
    if after:
      kept = min(kept, after['start'])
      lost = lines[-1]['seconds']['step'] - _at(lines, kept)
      total['step'] -= lost
      total[REDONE] += lost
      total[DOWN] += max(0.0, after['begun'] - lines[-1]['time'])
    after = lines[0]
  return total


def summary(workdir: str | pathlib.Path) -> str:
  """What `spent` says, for people; '' if nothing is known."""
  total = spent(workdir)
  whole = sum(total.values())
  if not whole:
    return ''
  lost = {part: seconds for part, seconds in total.items() if part != 'step' and seconds}
  parts = (f'{part} {seconds / whole:.1%}' for part, seconds in lost.items())
  return (
    f'goodput {total["step"] / whole:.1%} of {whole:.0f} s in {len(_read(workdir))} starts; '
    f'lost: {", ".join(parts)}'
  )


def _read(workdir: str | pathlib.Path) -> list[list[dict[str, Any]]]:
  """The lines of each process, one process after the other; broken ones are left out."""
  try:
    lines = pathlib.Path(workdir, FILE).read_bytes().split(b'\n')
  except OSError:
    return []
  processes: dict[str, list] = {}
  for line in lines:
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
      said = json_file.parse(line)
      if _is_whole(said):
        processes.setdefault(said['process'], []).append(said)
  return list(processes.values())


def _is_whole(said: dict[str, Any]) -> bool:
  """Whether a line is as `Ledger.note` writes it: a disk may be full, a process may end."""
  seconds = said['seconds']
  numbers = [said[name] for name in ('begun', 'start', 'time', 'step')] + [seconds['step']]
  sound = all(type(number) in (int, float) for number in (*numbers, *seconds.values()))
  sound = sound and all(abs(number) < 1e15 for number in (*numbers, *seconds.values()))
  return sound and seconds.keys() <= set(clock_lib.PARTS) and isinstance(said['process'], str)


def _at(lines: list[dict[str, Any]], step: int) -> float:
  """Seconds of steps that a process had spent when it had done `step`."""
  before = {'step': lines[0]['start'], 'seconds': {'step': 0.0}}
  for line in lines:
    if line['step'] >= step:
      steps = max(1, line['step'] - before['step'])
      share = max(0, step - before['step']) / steps
      gone = before['seconds']['step']
      return gone + share * (line['seconds']['step'] - gone)
    before = line
  return before['seconds']['step']
