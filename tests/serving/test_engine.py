"""One thread for all: nobody waits for ever, and no failure takes the others along."""

import collections
import queue
import threading
import time
import weakref

import numpy as np
import pytest
from test_decoder import VOCABULARY, prompts, random_network, settings

from ttt_jax.config import Mask
from ttt_jax.sampling import decoder
from ttt_jax.serving import engine, metrics


@pytest.fixture(scope='module')
def speak():
  return decoder.Decoder(*random_network(), VOCABULARY, settings({}), Mask('span', 3, False))


@pytest.fixture
def made(speak):
  running = engine.Engine(speak, 3, 2, 8, metrics.Metrics())
  running.start(warm=False)
  yield running
  running.close()


class Ear(queue.Queue):
  """What one client is told."""

  def __call__(self, events):
    for event in events:
      self.put(event)

  def whole(self):
    out = []
    while not out or out[-1].kind not in ('done', 'failed'):
      out.append(self.get(timeout=120))
    return out


def said(events):
  return np.concatenate([event.tokens for event in events]).tolist()


def test_all_are_answered_as_if_alone(speak, made):
  chosen, ears = prompts(12), [Ear() for _ in range(12)]
  waiting = collections.deque(enumerate(zip(chosen, ears)))
  while waiting:
    number, (prompt, ear) = waiting[0]
    try:
      made.submit(speak.request(prompt, number), ear)
      waiting.popleft()
    except engine.BusyError as error:
      assert error.seconds >= 1
      time.sleep(0.01)
  for number, (prompt, ear) in enumerate(zip(chosen, ears)):
    assert said(ear.whole()) == said(speak.stream(prompt, number))


def test_who_leaves_is_told_nothing_and_makes_room(speak, made, monkeypatch):
  turn, hold, going = made._turn, threading.Event(), threading.Event()

  def slow():
    going.set()
    hold.wait(60)
    turn()

  monkeypatch.setattr(made, '_turn', slow)
  request, ears = speak.request(prompts(1)[0]), [Ear() for _ in range(5)]
  tickets = [made.submit(request, ear) for ear in ears]  # 3 places, 2 wait
  with pytest.raises(engine.BusyError):
    made.submit(request, Ear())
  going.wait(60)
  for ticket in tickets[:4]:
    made.cancel(ticket)
  late = Ear()
  made.submit(request, late)
  hold.set()
  assert late.whole()[-1].kind == ears[4].whole()[-1].kind == 'done'
  assert all(ear.empty() for ear in ears[:4])
  assert made.load == (0, 0)


def test_a_failure_is_told_and_survived(speak, made, monkeypatch):
  ear, run = Ear(), made._places.run

  def broken(limit):
    monkeypatch.setattr(made._places, 'run', run)
    raise MemoryError('no more')

  monkeypatch.setattr(made._places, 'run', broken)
  request = speak.request(prompts(1)[0])
  made.submit(request, ear)
  assert ear.whole()[-1].kind == 'failed'
  assert made.alive and 'ttt_failures_total 1' in made._metrics.text({})
  made.submit(request, ear)
  assert ear.whole()[-1].kind == 'done'


def test_a_place_is_kept_for_who_is_still_coming(speak, made):
  request, ears = speak.request(prompts(1)[0]), [Ear() for _ in range(2)]
  tickets = [made.reserve() for _ in range(5)]  # 3 places, 2 wait
  assert made.load == (5, 0)
  with pytest.raises(engine.BusyError):
    made.reserve()
  with pytest.raises(engine.BusyError):
    made.submit(request, Ear())
  made.cancel(tickets[0])
  made.submit(request, ears[0])
  assert made.submit(request, ears[1], ticket=tickets[4]) == tickets[4]
  assert all(ear.whole()[-1].kind == 'done' for ear in ears)
  for ticket in tickets[1:4]:
    made.cancel(ticket)
  assert made.load == (0, 0)


def test_what_an_answer_held_is_let_go_before_more_is_asked_for(speak, made, monkeypatch):
  held, passes, empty = [], made._places._passes, made._places._passes.empty

  def broken(state, *_):
    held.append(weakref.ref(state.cache.k))
    raise MemoryError('no more')

  def noted(*arguments):
    monkeypatch.undo()
    held.append(held[0]() is None)
    return empty(*arguments)

  monkeypatch.setattr(engine.logging, 'exception', print)  # pytest keeps what is logged
  monkeypatch.setattr(passes, 'run', broken)
  monkeypatch.setattr(passes, 'empty', noted)
  ear = Ear()
  made.submit(speak.request(prompts(1)[0]), ear)
  assert ear.whole()[-1].kind == 'failed'
  made.close()
  assert held[1:] == [True]


def test_a_failure_that_cannot_be_survived_is_told_to_all(speak, made, monkeypatch):
  def broken(*_, **__):
    raise MemoryError('no more')

  monkeypatch.setattr(made._places, 'run', broken)
  monkeypatch.setattr(made._places._passes, 'empty', broken)
  request, ears = speak.request(prompts(1)[0]), [Ear() for _ in range(5)]
  with made._changed:  # nothing begins before all are there
    for ear in ears:
      made.submit(request, ear)
  assert all(ear.whole()[-1].kind == 'failed' for ear in ears)
  made.close()
  assert not made.alive and made.load == (0, 0)
  with pytest.raises(engine.ClosedError):
    made.submit(request, Ear())


def test_one_who_cannot_listen_disturbs_nobody(speak, made):
  def deaf(events):
    raise ValueError

  ear, request = Ear(), speak.request(prompts(1)[0])
  made.submit(request, deaf)
  made.submit(request, ear)
  assert ear.whole()[-1].kind == 'done'


def test_the_end_waits_for_what_was_taken(speak, made):
  ears, request = [Ear() for _ in range(5)], speak.request(prompts(1)[0])
  for ear in ears:
    made.submit(request, ear)
  made.close()
  assert not made.alive and all(list(ear.queue)[-1].kind == 'done' for ear in ears)
  with pytest.raises(engine.ClosedError):
    made.submit(request, Ear())


def test_long_prompts_are_read_a_few_at_a_time(speak, made, monkeypatch):
  monkeypatch.setattr(engine, '_READ', 30)
  admitted, admit = [], made._places.admit

  def noted(requests):
    admitted.append(len(requests))
    admit(requests)

  monkeypatch.setattr(made._places, 'admit', noted)
  made._changed.acquire()  # nothing begins before all are there
  ears = [Ear() for _ in range(4)]
  for length, ear in zip((5, 20, 20, 40), ears):
    made.submit(speak.request(np.full(length, 3, np.int32)), ear)
  made._changed.release()
  for ear in ears:
    ear.whole()
  first, *others = [count for count in admitted if count]
  assert first == 2 and others == [1, 1]
