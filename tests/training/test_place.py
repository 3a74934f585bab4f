"""The folder of a run belongs to one run at a time."""

import errno
import fcntl
import signal
import subprocess
import sys

import pytest

from ttt_jax import checkpoint
from ttt_jax.training import place

HOLD = f"""
import fcntl, sys, time
file = open(sys.argv[1] + '/{place.LOCK}', 'a+')
fcntl.flock(file, fcntl.LOCK_EX)
print('held', flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
  """A process that holds the folder."""
  command = [sys.executable, '-S', '-E', '-c', HOLD, str(tmp_path)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == b'held\n'
    yield process
    process.kill()


def test_a_folder_in_which_another_run_trains_is_refused(other, tmp_path, caplog):
  refused = pytest.raises(checkpoint.CheckpointError, match='another run trains here')
  with refused, place.alone(tmp_path, 0.1):
    pass
  assert 'up to 0.1 s for its end' in caplog.text


def test_a_run_that_ends_is_waited_for_however_it_ends(other, tmp_path, monkeypatch):
  monkeypatch.setattr(place.time, 'sleep', lambda _: other.send_signal(signal.SIGKILL))
  with place.alone(tmp_path, 60):
    assert other.poll() is not None or other.wait() == -signal.SIGKILL


def test_a_folder_is_held_and_free_again(tmp_path):
  folder = tmp_path / 'run'
  with place.alone(folder, 0):
    said = (folder / place.LOCK).read_text()
    assert said.split()[0].isdigit() and ' on ' in said
    with pytest.raises(checkpoint.CheckpointError, match='another run'), place.alone(folder, 0):
      pass
  with place.alone(folder, 0):
    pass


def test_where_nothing_can_be_locked_a_run_goes_on_with_a_warning(
  tmp_path, monkeypatch, caplog
):
  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', refuse)
  with place.alone(tmp_path, 0):
    assert 'nothing stops a second run' in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').touch()
  refused = pytest.raises(checkpoint.CheckpointError, match='cannot write to .*file/run')
  with refused, place.alone(tmp_path / 'file' / 'run', 0):
    pass
