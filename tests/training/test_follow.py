"""The loop with a step that computes nothing: what is read when, and what is reported."""

import threading
from typing import NamedTuple

import jax
import numpy as np
import pytest
from conftest import make_config

from ttt_jax import losses
from ttt_jax.training import clock as clock_lib
from ttt_jax.training import follow, guard, loop, state, stopping, trace, watchdog
from ttt_jax.training import step as step_lib


class Late:
  """A result that is not there before it is released; who waits for it too long fails."""

  def __init__(self, value, released: threading.Event):
    self.value, self.released = np.asarray(value, np.float32), released

  def block_until_ready(self):
    if not self.released.wait(20):
      raise TimeoutError('nobody will ever release this')

  def __array__(self, *arguments, **more):
    return self.value


class Devices:
  """Stand for the step: step N gives a text loss of N * N nats over N tokens.

  They are done with it only when the next step has been called, or when it is one of `ends`.
  The updates of `skipped` are skipped, and in step `stop` some process wants to stop.
  """

  def __init__(self, ends, events, skipped=(), stop=None):
    self.ends, self.events, self.released = ends, events, threading.Event()
    self.skipped, self.stop, self.debt = skipped, stop, 0

  def __call__(self, current, batch, stop):
    number = int(current.step) + 1
    self.events.append(f'call {number}')
    self.released.set()
    self.released = threading.Event()
    if number in self.ends:
      self.released.set()

    def late(value):
      return Late(value, self.released)

    levels = {name: late(np.zeros(losses.NOISE_BINS)) for name in losses.Sums._fields[4:7]}
    sums = losses.Sums(*map(late, [0] * len(losses.Sums._fields)))._replace(**levels)
    sums = sums._replace(text_loss=late(number**2), text_count=late(number))
    sums = sums._replace(positions=late(2 * number), filled=late(number))
    skipped = number in self.skipped
    self.debt += skipped
    verdict = guard.Verdict(np.bool_(skipped), np.int32(self.debt), np.float32(self.debt))
    results = step_lib.Results(sums, late(number), verdict, np.bool_(number == self.stop))
    return state.State(np.int32(number), None, None), results


class Writer:
  """Notes what the follower does, among the other events."""

  def __init__(self, events):
    self.events, self.reports = events, {}

  def advance(self):
    self.events.append('read')

  def write(self, number, figures):
    self.events.append(f'report {number}')
    self.reports[number] = figures

  def close(self):
    self.events.append('closed')


class Outcome(NamedTuple):
  events: list
  reports: dict
  clock: clock_lib.Clock


class Store:
  """Notes what is to be saved."""

  def __init__(self, events):
    self.events = events

  def save(self, number, params, moments):
    self.events.append(f'save {number}')


def run(
  steps, every, log_every, start=0, judged=0, skipped=(), stop=None, **changes
) -> Outcome:
  config = make_config(
    train__steps=steps,
    train__checkpoint_every=every,
    train__log_every=log_every,
    evaluation__every=judged,
    evaluation__suite='none.yaml' if judged else '',
    **changes,
  )
  events, clock = [], clock_lib.Clock()
  # All know of a wish to stop a step later, or as soon as a step is to be judged.
  told = stop and (stop if judged and stop % judged == 0 else stop + 1)
  ends = {*range(every, steps, every), steps} | ({told} if stop else set())
  devices = Devices(ends, events, skipped, stop)
  writer = Writer(events)

  def note(number, results):
    events.append(f'skipped {number}')

  follower = follow.Follower(clock, writer, config, 50, jax.devices(), note)
  tracer = trace.Tracer('nowhere', range(0), follower.catch_up)
  current, batches = state.State(np.int32(start), None, None), range(start, steps)

  def evaluate(number, params):
    events.append(f'evaluate {number}')

  with watchdog.Watchdog(60, 'nowhere') as watch:
    parts = Store(events), clock, follower, tracer, stopping.Notice(60), watch, evaluate
    last, complete = loop.run(config, devices, current, batches, loop.Attendants(*parts))
  follower.close()
  assert last.step == (told or steps)
  assert complete == (not stop)
  return Outcome(events, writer.reports, clock)


def test_a_step_is_read_when_the_next_has_been_called():
  events, _, _ = run(steps=4, every=100, log_every=1)
  assert events == [
    *('call 1', 'call 2', 'read', 'report 1', 'call 3', 'read', 'report 2'),
    *('call 4', 'read', 'report 3', 'read', 'report 4', 'save 4', 'closed'),
  ]


def test_what_leads_up_to_a_checkpoint_is_reported_before_it_is_kept():
  events, _, _ = run(steps=6, every=4, log_every=2)
  order = [event for event in events if event.split()[0] in ('report', 'save')]
  assert order == ['report 2', 'report 4', 'save 4', 'report 6', 'save 6']
  assert events.index('save 4') < events.index('call 5')


def test_a_model_is_judged_when_it_is_kept_and_reported_and_at_the_end():
  events, _, _ = run(steps=5, every=2, log_every=2, judged=2)
  order = [e for e in events if e.split()[0] in ('report', 'save', 'evaluate')]
  assert order == [f'{e} {n}' for n in (2, 4, 5) for e in ('report', 'save', 'evaluate')]
  assert events.index('evaluate 2') < events.index('call 3')


@pytest.mark.parametrize('every,log_every,start', [(100, 3, 0), (2, 3, 0), (5, 1, 3)])
def test_every_step_is_in_one_report(every, log_every, start):
  _, reports, _ = run(7, every, log_every, start)
  before = start
  assert list(reports) == sorted({*range(log_every, 8, log_every), 7} - set(range(start + 1)))
  for number, figures in reports.items():
    done = np.arange(before + 1, number + 1)
    np.testing.assert_allclose(figures['text_loss'], (done**2).sum() / done.sum(), rtol=1e-6)
    np.testing.assert_allclose(figures['gradient_norm'], done.mean(), rtol=1e-6)
    assert figures['fill'] == 0.5
    before = number


def test_reports_of_speed_cover_all_time_up_to_their_last_step():
  _, reports, clock = run(5, 100, 2)
  assert ['compile_seconds' in figures for figures in reports.values()] == [True, False, False]
  worked, seconds = 0.0, 0.0
  for number, steps, tokens in ((2, 2, 1 + 2), (4, 2, 3 + 4), (5, 1, 5)):
    worked += steps * reports[number]['step_seconds']
    seconds += tokens / reports[number]['tokens_per_second']
  np.testing.assert_allclose(worked, clock.seconds['step'])
  whole = sum(clock.seconds.values()) - clock.seconds['start'] - clock.seconds['compile']
  np.testing.assert_allclose(seconds, whole)
  assert reports[5]['goodput'] == clock.goodput


def test_what_goes_wrong_on_the_devices_stops_the_run(monkeypatch):
  def fail(late):
    raise FloatingPointError('on the device')

  monkeypatch.setattr(Late, 'block_until_ready', fail)
  with pytest.raises(FloatingPointError, match='on the device'):
    run(steps=4, every=100, log_every=1)


def test_a_wish_to_stop_is_granted_when_all_know_of_it_and_what_was_done_is_saved():
  events, reports, _ = run(steps=9, every=100, log_every=2, stop=3)
  assert events[-4:] == ['read', 'report 4', 'save 4', 'closed'] and list(reports) == [2, 4]


def test_a_wish_to_stop_is_granted_before_an_evaluation_that_is_due():
  events, _, _ = run(steps=9, every=100, log_every=2, stop=3, judged=3)
  assert events[-2:] == ['save 3', 'closed'] and 'evaluate 3' not in events


def test_a_last_step_that_is_not_judged_is_not_the_end():
  events, _, _ = run(steps=4, every=100, log_every=2, stop=3, judged=9)
  assert events[-2:] == ['save 4', 'closed']


def test_skipped_steps_are_told_and_are_in_no_mean():
  events, reports, _ = run(steps=6, every=100, log_every=3, skipped=(2, 4, 5, 6))
  assert [event for event in events if 'skip' in event] == [
    f'skipped {n}' for n in (2, 4, 5, 6)
  ]
  assert reports[3]['gradient_norm'] == 2 and reports[3]['text_loss'] == (1 + 9) / (1 + 3)
  assert reports[3]['skipped'] == 1 and reports[6]['skipped'] == 4
  assert 'text_loss' not in reports[6] and reports[6]['tokens_per_second'] > 0


def test_a_run_that_skips_too_much_ends_before_it_saves():
  with pytest.raises(guard.DivergedError, match='step 5: more than 2 updates'):
    run(steps=6, every=5, log_every=3, skipped=(1, 3, 5), guard__skips=2)
