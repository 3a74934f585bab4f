"""Follows the steps of a run: reads the results of one when the next is under way."""

from collections.abc import Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from ttt_jax import chips, losses
from ttt_jax import config as config_lib
from ttt_jax.training import clock as clock_lib
from ttt_jax.training import metrics, optimizer


class Follower:
  """Notes when steps end, adds up their results, and reports them; devices never wait for it.

  The host is one step ahead of the devices: it dispatches step N, waits for step N - 1, and
  reads its results while the devices work on step N. A thread of its own waits for the end
  of each step, so that the time is right even when the host waits for data meanwhile.
  """

  def __init__(
    self,
    clock: clock_lib.Clock,
    writer: metrics.Writer,
    config: config_lib.Config,
    vocabulary_size: int,
    devices: Sequence[Any],
  ):
    """Follows no step yet.

    Args:
      clock: is told of every step.
      writer: is given the reports.
      config: of the run.
      vocabulary_size: ids in use.
      devices: all that work on a step.
    """
    self._clock, self._writer, self._train = clock, writer, config.train
    self._rate = optimizer.learning_rate(config.optimizer, config.train.steps)
    peaks = [chips.peak(device) for device in devices]
    peak = None if None in peaks else sum(peaks)
    self._yardstick = metrics.Yardstick(config.model, vocabulary_size, peak)
    self._waiter = futures.ThreadPoolExecutor(1, 'end of step')
    self._under_way = None
    self._results = []  # of the steps since the last report
    self._spent = dict(clock.seconds)  # at the last report

  def follow(self, number: int, begin: float, results: tuple[losses.Sums, jax.Array]) -> None:
    """Notes a step that has been dispatched, and reads the one before.

    Args:
      number: of the step.
      begin: when it was called; of the first, when it was compiled.
      results: sums and norm of the gradient, which need not be there yet.
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
    if number % self._train.log_every == 0 or number == self._train.steps:
      self._report(number)

  def _report(self, number: int) -> None:
    """Of the steps since the last report, and of the time from its end to theirs."""
    sums, norms = zip(*self._results)
    total = losses.Sums(*(np.sum(each, 0) for each in zip(*sums)))
    now = dict(self._clock.seconds)
    spent = {part: now[part] - self._spent[part] for part in now}
    self._writer.write(
      number,
      metrics.summarize(total)
      | {'gradient_norm': float(np.mean(norms)), 'learning_rate': float(self._rate(number - 1))}
      | metrics.speed(total, len(sums), spent, self._yardstick)
      | {'goodput': self._clock.goodput}
      | metrics.memory(jax.local_devices()),
    )
    self._results, self._spent = [], now
