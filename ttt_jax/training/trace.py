"""Traces of some steps by jax.profiler, which TensorBoard and Perfetto show."""

import pathlib
import re
from collections.abc import Callable

import jax

from ttt_jax import errors

DIRECTORY = 'profile'


class TraceError(errors.UserError):
  """The steps to trace are none."""

  exit_code = errors.FINAL


def parse(text: str, steps: int) -> range:
  """The steps that `text` names.

  Args:
    text: first and last step, such as '10:15'; '' names none.
    steps: of the run.

  Raises:
    TraceError: it is not written so, or the run has no such steps.
  """
  if not text:
    return range(0)
  found = re.fullmatch(r'(\d+):(\d+)', text)
  first, last = map(int, found.groups()) if found else (0, 0)
  if not 1 <= first <= last <= steps:
    raise TraceError(
      f'--profile_steps={text}: give the first and the last step, such as 10:15, '
      f'within 1:{steps} (config.train.steps is {steps})'
    )
  return range(first, last + 1)


class Tracer:
  """Writes a trace of the chosen steps, as far as this run does them, into a run's folder.

  Each process writes a file under the name of its host. The devices are idle before the first
  of the steps and behind the last, so that the trace holds them whole, and no other.
  """

  def __init__(self, workdir: str | pathlib.Path, steps: range, settle: Callable[[], None]):
    """Traces nothing yet.

    Args:
      workdir: folder of the run.
      steps: to trace.
      settle: waits until the devices are done.
    """
    self._folder = pathlib.Path(workdir, DIRECTORY)
    self._steps, self._settle, self._on = steps, settle, False

  def before(self, number: int) -> jax.profiler.StepTraceAnnotation:
    """Is called before step `number` is; the context in which to call it."""
    if number in self._steps and not self._on:
      self._settle()
      jax.profiler.start_trace(str(self._folder))
      self._on = True
    return jax.profiler.StepTraceAnnotation('train', step_num=number)

  def after(self, number: int) -> None:
    """Is called when step `number` has been dispatched."""
    if self._on and number == self._steps[-1]:
      self._settle()
      self.close()

  def close(self) -> None:
    """Ends a trace that was begun."""
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
