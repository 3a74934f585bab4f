import hypothesis
import numpy as np
from hypothesis import strategies

from ttt_jax.training import clock as clock_lib


class Time:
  """A time that passes when it is told to."""

  def __init__(self):
    self.now = 100

  def __call__(self):
    return self.now


def simulate(start, steps):
  """A run whose host and devices take given whole seconds.

  Args:
    start: seconds before the first batch is asked for.
    steps: of each the seconds of waiting for data, of the call, of the devices, of saving.

  Returns:
    The clock, and what the host (parts) and the devices (busy or not) did in each second.
  """
  time = Time()
  clock = clock_lib.Clock(time)
  host, busy = [], set()

  def spend(part, seconds):
    host.extend([part] * seconds)
    time.now += seconds

  spend('start', start)
  clock.enter('data')
  before, done = None, 0
  for number, (data, call, work, save) in enumerate(steps):
    spend('data', data)
    begin = clock.enter('rest' if number else 'compile')
    spend('rest' if number else 'compile', call)
    called = clock.enter('rest')
    begin = begin if number else called
    first = max(begin, done)
    done_before, done = done, first + work
    busy.update(range(first, done))
    if before:
      spend('rest', max(0, done_before - time.now))
      clock.worked(*before)
    before = begin, done
    if save:
      spend('rest', max(0, done - time.now))
      clock.worked(*before)
      before = None
      clock.enter('save')
      spend('save', save)
    clock.enter('data')
  if before:
    spend('data', max(0, done - time.now))
    clock.worked(*before)
  clock.settle()
  return clock, host, [100 + second in busy for second in range(len(host))]


seconds = strategies.integers(0, 5)


@hypothesis.given(
  seconds, strategies.lists(strategies.tuples(seconds, seconds, seconds, seconds), max_size=6)
)
def test_every_second_belongs_to_the_devices_or_to_what_the_host_did(start, steps):
  clock, host, busy = simulate(start, steps)
  parts = np.where(busy, 'step', host)
  assert clock.seconds == {part: (parts == part).sum() for part in clock_lib.PARTS}
  if len(host):
    np.testing.assert_allclose(clock.goodput, np.mean(busy))


def test_data_that_come_while_devices_work_cost_nothing_and_late_ones_their_delay():
  clock, _, _ = simulate(2, [(1, 3, 4, 0)] + [(3, 1, 4, 0)] * 5)
  lost = {'start': 2, 'data': 1, 'compile': 3, 'save': 0, 'evaluate': 0, 'rest': 0}
  assert clock.seconds == lost | {'step': 6 * 4}
  clock, _, _ = simulate(2, [(1, 3, 4, 0)] + [(6, 0, 4, 0)] * 5)
  assert clock.seconds['data'] == 1 + 5 * 2 and clock.seconds['step'] == 24


def test_a_clock_tells_shares():
  clock, _, _ = simulate(1, [(1, 2, 5, 1)])
  assert str(clock) == (
    '10.0 s: step 50.0%, start 10.0%, compile 20.0%, data 10.0%, save 10.0%, evaluate 0.0%, '
    'rest 0.0%'
  )
