"""Processes in which nothing happens, for two reasons."""

import os
import subprocess
import sys

import pytest

from ttt_jax.training import stopping, watchdog

SCRIPT = """
import ctypes, sys, time
from ttt_jax.training import watchdog
with watchdog.Watchdog(1.0, sys.argv[1]) as watch:
  for _ in range(6):  # longer than the watchdog's patience
    time.sleep(0.2)
    watch.alive()
  print('worked', flush=True)
  def stuck():
    {stuck}
  stuck()
print('never said')
"""


@pytest.mark.parametrize(
  'stuck',
  [
    'time.sleep(60)',
    'ctypes.PyDLL(None).sleep(60)',  # code that keeps Python's lock
  ],
)
def test_a_process_that_hangs_ends_and_tells_where(tmp_path, stuck):
  command = [sys.executable, '-c', SCRIPT.format(stuck=stuck), str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
  assert done.stdout == 'worked\n' and done.returncode != 0
  assert 'in stuck' in done.stderr and 'most recent call first' in done.stderr
  if 'PyDLL' not in stuck:  # there the timer of the C library ends it, and knows no codes
    assert done.returncode == watchdog.CODE and 'config.guard.hang' in done.stderr
    (path,) = (tmp_path / watchdog.DIRECTORY).iterdir()
    assert 'in stuck' in path.read_text()


def test_a_process_that_nobody_listens_to_ends_and_tells_all_the_same(tmp_path):
  script = 'import sys, time; from ttt_jax.training import watchdog\n'
  script += 'with watchdog.Watchdog(0.2, sys.argv[1]): time.sleep(30)'
  notice = 'import signal, time; from ttt_jax.training import stopping\n'
  notice += 'with stopping.Notice(0.1):\n  signal.raise_signal(15)\n  time.sleep(30)'
  mine, theirs = os.pipe()
  os.close(mine)
  commands = [[sys.executable, '-c', each, str(tmp_path)] for each in (script, notice)]
  started = [subprocess.Popen(command, stderr=theirs) for command in commands]
  os.close(theirs)
  assert [process.wait(60) for process in started] == [watchdog.CODE, stopping.CODE]
  assert 'config.guard.hang' in next((tmp_path / watchdog.DIRECTORY).iterdir()).read_text()


def test_a_watchdog_that_is_left_does_not_bark(tmp_path):
  script = 'import sys, time; from ttt_jax.training import watchdog\n'
  script += 'with watchdog.Watchdog(0.2, sys.argv[1]): pass\ntime.sleep(0.6)'
  subprocess.run([sys.executable, '-c', script, str(tmp_path)], timeout=40, check=True)
  assert not list(tmp_path.iterdir())
