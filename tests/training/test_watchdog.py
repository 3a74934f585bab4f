"""Processes in which nothing happens, for two reasons."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from ttt_jax.training import stopping, watchdog

# It waits for the timer of the C library to be set, which the second way to be stuck needs.
SCRIPT = """
import ctypes, faulthandler, sys, threading, time
from ttt_jax.training import watchdog
ready, later = threading.Event(), faulthandler.dump_traceback_later
def set_timer(*args, **more):
  later(*args, **more)
  ready.set()
faulthandler.dump_traceback_later = set_timer
def stuck():
  with watchdog.Watchdog(1.0, sys.argv[1]):
    ready.wait()
    {stuck}
stuck()
print('never said')
"""


@pytest.mark.parametrize(
  'stuck',
  [
    'time.sleep(600)',
    'ctypes.PyDLL(None).sleep(600)',  # code that keeps Python's lock
  ],
)
def test_a_process_that_hangs_ends_and_tells_where(tmp_path, stuck):
  command = [sys.executable, '-c', SCRIPT.format(stuck=stuck), str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
  assert not done.stdout and done.returncode != 0
  assert 'in stuck' in done.stderr and 'most recent call first' in done.stderr
  if 'PyDLL' not in stuck:  # there the timer of the C library ends it, and knows no codes
    assert done.returncode == watchdog.CODE and 'config.guard.hang' in done.stderr
    (path,) = (tmp_path / watchdog.DIRECTORY).iterdir()
    assert 'in stuck' in path.read_text()


def test_a_process_that_nobody_listens_to_ends_and_tells_all_the_same(tmp_path):
  script = 'import sys, time; from ttt_jax.training import watchdog\n'
  script += 'with watchdog.Watchdog(2.0, sys.argv[1]): time.sleep(600)'
  notice = 'import signal, time; from ttt_jax.training import stopping\n'
  notice += 'with stopping.Notice(0.1):\n  signal.raise_signal(15)\n  time.sleep(600)'
  mine, theirs = os.pipe()
  os.close(mine)
  commands = [[sys.executable, '-c', each, str(tmp_path)] for each in (script, notice)]
  started = [subprocess.Popen(command, stderr=theirs) for command in commands]
  os.close(theirs)
  assert [process.wait(300) for process in started] == [watchdog.CODE, stopping.CODE]
  assert 'config.guard.hang' in next((tmp_path / watchdog.DIRECTORY).iterdir()).read_text()


def test_what_is_left_of_the_grace_is_counted_from_the_signal(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(stopping, 'time', types.SimpleNamespace(monotonic=lambda: now[0]))
  with stopping.Notice(60) as notice:
    now[0] += 50
    assert notice.left == 60
    signal.raise_signal(signal.SIGTERM)
    now[0] += 20
    assert notice.left == 40
    now[0] += 50
    assert notice.left == 0


class Told:
  """The time and the timer of a watchdog, which pass and go off when they are told to."""

  def __init__(self, monkeypatch):
    self.now, self.set, self.looks = 0.0, False, 0
    monkeypatch.setattr(watchdog, 'time', types.SimpleNamespace(monotonic=lambda: self.now))
    monkeypatch.setattr(watchdog, 'faulthandler', self)

  def dump_traceback_later(self, *_, **__):
    self.set = True
    self.looks += 1

  def cancel_dump_traceback_later(self):
    self.set = False

  def passes(self, seconds: float) -> None:
    """Returns when the watchdog has seen that so much time has passed."""
    self.now += seconds
    seen = self.looks + 2  # the first of them is over when the second begins
    while self.looks < seen:
      time.sleep(0.001)


def test_a_watchdog_barks_when_nothing_happens_and_not_before(tmp_path, monkeypatch):
  told, barks = Told(monkeypatch), []
  watch = watchdog.Watchdog(0.1, tmp_path)
  monkeypatch.setattr(watch, '_bark', lambda: barks.append(told.now))
  with watch:
    for _ in range(4):
      told.passes(0.09)
      watch.alive()
    assert not barks
    told.passes(0.09)
    assert not barks and told.set
    told.passes(0.09)
    assert barks


def test_a_watchdog_that_is_left_does_not_bark(tmp_path, monkeypatch):
  told = Told(monkeypatch)
  with watchdog.Watchdog(0.1, tmp_path):
    told.passes(0)
    assert 'watchdog' in [thread.name for thread in threading.enumerate()]
  assert not told.set  # and nobody is left to set it again
  assert 'watchdog' not in [thread.name for thread in threading.enumerate()]
