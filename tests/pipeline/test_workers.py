import functools
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from data_pipelines.stream import workers

SIZE = 10**6  # bytes of a batch; a pipe holds fewer


def numbered(stop, first, stride):
  for number in range(first, stop, stride):
    yield np.full(SIZE // 8, number)


def numbers(batches):
  return [int(batch[0]) for batch in batches if np.all(batch == batch[0])]


@pytest.mark.parametrize('count', [1, 3, 9])
def test_batches_come_in_their_order(count):
  made = workers.in_turn(functools.partial(numbered, 7), 2, 7, count)
  assert numbers(made) == [2, 3, 4, 5, 6]
  assert not multiprocessing.active_children()


def test_one_that_is_killed_while_it_sends_is_replaced_and_leaves_nothing():
  made = workers.in_turn(functools.partial(numbered, 20), 0, 20, 2)
  found = numbers([next(made)])
  others = multiprocessing.active_children()
  others[0].kill()  # what it sends does not fit into its pipe: it is in the midst of that
  found += numbers(itertools.islice(made, 9))
  assert found == list(range(10)) and others[1].is_alive()
  made.close()
  assert not multiprocessing.active_children()


def test_signals_to_the_whole_group_do_not_end_workers():
  made = workers.in_turn(functools.partial(numbered, 9), 0, 9, 1)
  found = numbers([next(made)])
  (worker,) = multiprocessing.active_children()
  for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(worker.pid, number)
  found += numbers(itertools.islice(made, 5))
  assert found == list(range(6)) and multiprocessing.active_children() == [worker]
  made.close()


HOLDS = """
import itertools
from data_pipelines.stream import workers

def endless(first, stride):
  yield from itertools.repeat(bytes(10**6))

if __name__ == '__main__':
  held = workers.in_turn(endless, 0, 9, 2)
  next(held)
  raise SystemExit(3)
"""


def test_a_process_that_still_holds_batches_can_end(tmp_path):
  script = tmp_path / 'holds.py'
  script.write_text(HOLDS)
  paths = {'PYTHONPATH': str(pathlib.Path(workers.__file__).parents[2])}
  ended = subprocess.run(
    [sys.executable, script], env=os.environ | paths, timeout=60, check=False
  )
  assert ended.returncode == 3


class Unportable(Exception):
  def __init__(self, one, other):
    super().__init__(f'{one} and {other}')


def failing(error, stop, first, stride):
  for number in range(first, stop, stride):
    if number == 3:
      raise error() if error is not Unportable else Unportable('one', 'other')
    yield np.array([number])


@pytest.mark.parametrize(
  'error,seen', [(FileNotFoundError, FileNotFoundError), (Unportable, RuntimeError)]
)
def test_errors_of_a_worker_come_when_it_is_its_turn(error, seen):
  made = workers.in_turn(functools.partial(failing, error, 9), 0, 9, 2)
  assert numbers([next(made) for _ in range(3)]) == [0, 1, 2]
  with pytest.raises(seen) as caught:
    next(made)
  told = str(caught.value) + ''.join(getattr(caught.value, '__notes__', []))
  assert pathlib.Path(__file__).name in told and 'in failing' in told
  assert not multiprocessing.active_children()
