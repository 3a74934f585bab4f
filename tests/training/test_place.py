"""The folder of a run belongs to one run at a time."""

import errno
import fcntl
import os
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


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:40 / /mnt/bucket rw,nosuid - fuse.gcsfuse bucket rw,user_id=0
32 22 0:41 / /mnt/old rw - nfs 10.0.0.2:/vol1 rw,vers=3,nolock,addr=10.0.0.2
33 22 0:42 / /mnt/new rw - nfs4 10.0.0.2:/vol1 rw,vers=4.1,local_lock=none
34 22 0:43 / /mnt/stick rw - fuseblk /dev/sdb1 rw
35 22 0:44 / /mnt/half rw shared:7 - nfs 10.0.0.2:/vol1 rw,vers=3,local_lock=flock
"""


def test_storage_of_which_other_machines_see_no_locks_is_known(tmp_path):
  path = tmp_path / 'mounts'
  path.write_bytes(b'9 1 0:9 / /mnt/\xff rw - tmpfs none rw\n' + MOUNTS.encode())
  kinds = {40: 'fuse.gcsfuse', 41: 'nfs', 44: 'nfs'}
  for number in range(40, 46):
    found = place.local_locks(os.makedev(0, number), str(path))
    assert found == kinds.get(number), number
  assert place.local_locks(os.makedev(8, 1), str(path)) is None
  assert place.local_locks(os.makedev(0, 40), str(tmp_path / 'none')) is None


def test_where_a_lock_may_hold_on_one_machine_alone_a_warning_says_so(
  tmp_path, monkeypatch, caplog
):
  monkeypatch.setattr(place, 'local_locks', lambda device: None)
  with place.alone(tmp_path, 0):
    assert not caplog.text
  monkeypatch.setattr(place, 'local_locks', lambda device: 'fuse.gcsfuse')
  with place.alone(tmp_path, 0):
    assert 'lies on fuse.gcsfuse, where a lock may hold on this machine alone' in caplog.text
