import json

import pytest

from ttt_jax.training import clock as clock_lib
from ttt_jax.training import ledger


class Clock:
  """A clock of a process that has done nothing but steps, but for what it is told."""

  def __init__(self, age):
    self.age, self.seconds = age, dict.fromkeys(clock_lib.PARTS, 0.0)


def process(folder, begun, start, notes):
  """A process that began then, at a step, and notes (time, step, seconds of its parts)."""
  times = iter([begun + 1, *(time for time, _, _ in notes)])
  clock = Clock(1)  # it was begun a second before its ledger was
  book = ledger.Ledger(folder, clock, start, lambda: next(times))
  for _, step, seconds in notes:
    clock.seconds |= seconds
    book.note(step)


def test_what_is_done_again_and_the_time_between_are_lost(tmp_path):
  assert ledger.spent(tmp_path) == {} and ledger.summary(tmp_path) == ''
  process(
    tmp_path,
    100,
    0,
    [
      (120, 10, {'start': 5, 'compile': 5, 'step': 10}),
      (130, 20, {'step': 20}),  # one a second
      (142, 30, {'step': 30, 'save': 2}),
    ],
  )
  # It dies behind step 30; 24 is what was saved. 8 seconds later another one begins.
  process(tmp_path, 150, 24, [(166, 34, {'start': 6, 'step': 10})])
  found = ledger.spent(tmp_path)
  wanted = {'start': 11, 'compile': 5, 'save': 2, 'step': 34, 'redone': 6, 'down': 8}
  assert {part: seconds for part, seconds in found.items() if seconds} == wanted
  assert sum(found.values()) == 166 - 100
  assert ledger.summary(tmp_path) == (
    'goodput 51.5% of 66 s in 2 starts; lost: start 16.7%, compile 7.6%, save 3.0%, '
    'redone 9.1%, down 12.1%'
  )


def test_a_run_that_goes_back_twice_loses_what_either_start_takes_again(tmp_path):
  process(tmp_path, 0, 0, [(30, 30, {'step': 30})])  # one a second
  process(tmp_path, 30, 20, [(32, 22, {'step': 2})])
  process(tmp_path, 32, 10, [(52, 30, {'step': 20})])  # 20 was damaged
  found = ledger.spent(tmp_path)
  assert found['redone'] == 22 and found['step'] == 30


@pytest.mark.parametrize('saved,redone', [(30, 0), (0, 30), (5, 25), (40, 0)])
def test_steps_between_two_reports_count_in_proportion(tmp_path, saved, redone):
  process(tmp_path, 0, 0, [(10, 10, {'step': 10}), (30, 30, {'step': 30})])
  process(tmp_path, 30, saved, [(31, saved + 1, {'step': 1})])
  found = ledger.spent(tmp_path)
  assert found['redone'] == redone and found['step'] == 31 - redone


def test_clocks_that_jump_and_lines_that_are_cut_off_do_no_harm(tmp_path):
  process(tmp_path, 1000, 0, [(1010, 5, {'step': 10})])
  with (tmp_path / ledger.FILE).open('a') as lines:
    lines.write('{"process": "cut off\n[]\n')
  process(tmp_path, 400, 5, [(410, 9, {'step': 10})])
  found = ledger.spent(tmp_path)
  assert found['step'] == 20 and found['down'] == 0
  for line in (tmp_path / ledger.FILE).read_text().splitlines()[:1]:
    assert set(json.loads(line)) == {'process', 'begun', 'start', 'time', 'step', 'seconds'}
