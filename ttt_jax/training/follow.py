"""Follows the steps of a run: reads the results of one when the next is under way."""

from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from ttt_jax import chips, losses
from ttt_jax import config as config_lib
from ttt_jax.training import clock as clock_lib
from ttt_jax.training import guard, metrics, optimizer
from ttt_jax.training import step as step_lib

SKIPPED = 'skipped.jsonl'  # in the folder of a run


class Follower:
  """Notes when steps end, adds up their results, and reports them; devices never wait for it.

  The host is one step ahead of the devices: it dispatches step N, waits for step N - 1, and
  reads its results while the devices work on step N. A thread of its own waits for the end
  of each step, so that the time is right even when the host waits for data meanwhile.

  Attributes:
    stop: whether some process wanted to stop in one of the steps that were read; all
      processes read the same steps at the same time.
  """

  def __init__(
    self,
    clock: clock_lib.Clock,
    writer: metrics.Writer,
    config: config_lib.Config,
    vocabulary_size: int,
    devices: Sequence[Any],
    skipped: Callable[[int, step_lib.Results], None],
  ):
    """Follows no step yet.

    Args:
      clock: is told of every step.
      writer: is given the reports.
      config: of the run.
      vocabulary_size: ids in use.
      devices: all that work on a step.
      skipped: is told of a step whose update was skipped, and what it gave.
    """
    self.stop = False
    self._clock, self._writer, self._train = clock, writer, config.train
    self._guard, self._skipped = config.guard, skipped
    self._rate = optimizer.learning_rate(config.optimizer, config.train.steps)
    peaks = [chips.peak(device) for device in devices]
    peak = None if None in peaks else sum(peaks)
    self._yardstick = metrics.Yardstick(config.model, vocabulary_size, peak)
    self._waiter = futures.ThreadPoolExecutor(1, 'end of step')
    self._under_way = None
    self._results = []  # of the steps since the last report
    self._spent = dict(clock.seconds)  # at the last report

  def follow(self, number: int, begin: float, results: step_lib.Results) -> None:
    """Notes a step that has been dispatched, and reads the one before.

    Raises:
      DivergedError: too many updates were skipped.

    Args:
      number: of the step.
      begin: when it was called; of the first, when it was compiled.
      results: of the step, which need not be there yet.
    """
    before = self._under_way
    self._under_way = number, begin, self._waiter.submit(self._wait, results)
    if before:
      self._read(*before)

  def catch_up(self) -> None:
    """Waits until the devices are done with all steps, and reads the last one."""
    if self._under_way:
      self._read(*self._under_way)
    self._under_way = None

  def close(self) -> None:
    """Closes what was opened; a step that was not read is not waited for."""
    self._waiter.shutdown(wait=False)
    self._writer.close()

  def _wait(self, results: Any) -> tuple[float, Any]:
    jax.block_until_ready(results)
    return self._clock.now(), jax.device_get(results)

  def _read(self, number: int, begin: float, future: futures.Future) -> None:
    end, results = future.result()
    self._clock.worked(begin, end)
    self._results.append(results)
    self._writer.advance()
    self.stop |= bool(results.stop)
    if results.verdict.skipped:
      self._skip(number, results)
    if number % self._train.log_every == 0 or number == self._train.steps:
      self._report(number)

  def _skip(self, number: int, results: step_lib.Results) -> None:
    self._skipped(number, results)
    if results.verdict.debt > self._guard.skips:
      raise guard.DivergedError(
        f'step {number}: more than {self._guard.skips} updates had to be skipped within about '
        f'{self._guard.refill} steps (config.guard.skips, config.guard.refill), {SKIPPED} in '
        'the folder of the run has their records. Start again from an earlier checkpoint, with '
        'a lower learning rate or without these records'
      )

  def _report(self, number: int) -> None:
    """Of the steps since the last report, and of the time from its end to theirs."""
    # Speed is of all steps, losses are of those that were taken.
    taken = [each for each in self._results if not each.verdict.skipped]
    total = _total(self._results)
    verdict = self._results[-1].verdict
    skips = int(verdict.total)
    now = dict(self._clock.seconds)
    spent = {part: now[part] - self._spent[part] for part in now}
    self._writer.write(
      number,
      (_quality(taken) if taken else {})
      # Steps that were skipped before have left the schedule where it was.
      | {'learning_rate': float(self._rate(number - 1 - skips + bool(verdict.skipped)))}
      | {'skipped': skips}
      | metrics.speed(total, len(self._results), spent, self._yardstick)
      | {'goodput': self._clock.goodput}
      | metrics.memory(jax.local_devices()),
    )
    self._results, self._spent = [], now


def _total(results: Sequence[step_lib.Results]) -> losses.Sums:
  sums = [each.sums for each in results]
  return losses.Sums(*(np.sum(each, 0) for each in zip(*sums)))


def _quality(taken: Sequence[step_lib.Results]) -> dict[str, float]:
  norm = float(np.mean([each.norm for each in taken]))
  return metrics.summarize(_total(taken)) | {'gradient_norm': norm}
