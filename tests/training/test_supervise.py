"""Commands that fail, and are started again."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import make_config
from machines import by_linux

from ttt_jax import checkpoint, errors
from ttt_jax.training import supervise

# A run: its n-th start saves the steps, and ends in the ways, that it was told for it.
RUN = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
starts = folder / 'starts'
starts.touch()
starts.write_text(starts.read_text() + 'x')
step, end = eval(sys.argv[2])[len(starts.read_text()) - 1]
(folder / 'checkpoints' / str(step)).mkdir(parents=True, exist_ok=True)
print('train:  10%|#  | 1/9', file=sys.stderr, end='' if 'Fatal' in str(end) else None)
if end == 'kill':
  os.kill(os.getpid(), signal.SIGKILL)
if end in ('wait', 'restore', 'deaf'):
  if end == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  if end == 'deaf':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
  (folder / 'waits').touch()
  time.sleep(60)
if end == 'stopped':  # it leaves a process behind that cannot end by itself, with its stderr
  import subprocess
  from multiprocessing import shared_memory
  made = shared_memory.SharedMemory(create=True, size=9)
  (folder / 'shared').write_text(made.name)
  left = subprocess.Popen([sys.executable, '-S', '-E', '-c', 'import time; time.sleep(99)'])
  left.send_signal(signal.SIGSTOP)
  (folder / 'left').write_text(str(left.pid))
  os._exit(142)
if str(end).startswith('say:'):
  said, _, code = end.removeprefix('say:').rpartition(':')
  print(said, file=sys.stderr)
  sys.exit(int(code))
sys.exit(end)
"""


def alive(pid) -> bool:
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
  except OSError:
    return False


def run(folder, *starts, failures=3, **guard):
  guard = {f'guard__{name}': value for name, value in guard.items()}
  settings = make_config(guard__failures=failures, guard__backoff=0.001, **guard).guard
  command = [sys.executable, '-S', '-E', '-c', RUN, str(folder), repr(starts)]
  return supervise.supervise(command, str(folder), settings)


def starts(folder):
  return len((folder / 'starts').read_text())


def test_a_run_is_started_again_until_it_is_done(tmp_path, caplog):
  assert run(tmp_path, (3, 'kill'), (3, 142), (7, 143), (9, 0)) == 0
  assert starts(tmp_path) == 4
  for reason in ('SIGKILL', 'nothing moved any more', 'it was told to stop'):
    assert reason in caplog.text


def test_progress_forgives_failures_and_without_it_the_reason_is_told(tmp_path):
  ends = [(1, 'boom'), (1, 'boom'), (2, 'boom'), (2, 'boom'), (2, 'bang')]
  with pytest.raises(supervise.GivenUp, match='after 3 failures .*exit code 1: bang$'):
    run(tmp_path, *ends)
  assert starts(tmp_path) == 5


@pytest.mark.parametrize(
  'lines, reason',
  [
    (['F1129 07:01:14.9 8840 client.h:80] a task died', '@ 0x7f SetError()'], 'a task died'),
    (['I1129 07:01:14.9 loop.py:7] on we go', 'Fatal Python error: Aborted'], 'error: Aborted'),
  ],
)
def test_the_reason_of_a_crash_is_not_the_list_of_modules_behind_it(tmp_path, lines, reason):
  end = '\n'.join([*lines, 'Extension modules: numpy (total: 1)'])
  with pytest.raises(supervise.GivenUp, match=f'exit code 1: .*{reason}$'):
    run(tmp_path, (1, end), failures=1)


def test_a_step_that_was_there_before_is_no_progress(tmp_path):
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  with pytest.raises(supervise.GivenUp, match='after 2 failures'):
    run(tmp_path, (4, 1), (5, 1), failures=2)


@pytest.mark.parametrize('code,started', [(errors.FINAL, 1), (1, 3)])
def test_what_no_other_start_can_mend_is_not_tried_again(tmp_path, code, started):
  (tmp_path / 'checkpoints' / '0').mkdir(parents=True)
  with pytest.raises(supervise.GivenUp, match='error: no such setting'):
    run(tmp_path, *[(0, f'say:error: no such setting:{code}')] * 3)
  assert starts(tmp_path) == started


def sigterm_when_it_waits(folder):
  """A thread that sends SIGTERM to this process once the run in `folder` waits."""

  def tell():
    while not (folder / 'waits').exists():
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  teller = threading.Thread(target=tell)
  teller.start()
  return teller


@pytest.mark.parametrize('how', ['wait', 'restore'])  # before it is ready, it ends at once
def test_sigterm_is_passed_on_and_ends_it(tmp_path, how):
  teller = sigterm_when_it_waits(tmp_path)
  assert run(tmp_path, (3, how), (9, 0)) == 143
  teller.join()
  assert starts(tmp_path) == 1 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_that_does_not_hear_sigterm_is_killed_when_its_time_is_up(tmp_path, monkeypatch):
  monkeypatch.setattr(supervise, '_PARTING', 0.1)

  teller = sigterm_when_it_waits(tmp_path)
  assert run(tmp_path, (3, 'deaf'), (9, 0), grace=0.1) == 128 + signal.SIGKILL
  teller.join()


def test_a_run_does_not_begin_anew_where_its_folder_has_gone(tmp_path, caplog, monkeypatch):
  folder, away = tmp_path / 'run', tmp_path / 'away'
  folder.mkdir()
  listed, looks, stat = checkpoint.steps, [], os.stat

  def stale(path, **more):
    if str(path).startswith(str(folder)):
      raise OSError(errno.ESTALE, 'stale')
    return stat(path, **more)

  def steps(workdir):
    """At the second look storage goes, then it answers no more; at the fourth it is back."""
    found = listed(workdir) if len(looks) != 3 else []
    looks.append(found)
    if len(looks) == 2:
      folder.rename(away)
      folder.mkdir()
    if len(looks) == 3:
      monkeypatch.setattr(os, 'stat', stale)
    if len(looks) == 4:
      monkeypatch.setattr(os, 'stat', stat)
      folder.rmdir()
      away.rename(folder)
    return found

  monkeypatch.setattr(checkpoint, 'steps', steps)
  assert run(folder, (3, 'kill'), (9, 0), failures=9) == 0
  assert looks == [[], [3], [], []] and starts(folder) == 2
  assert caplog.text.count('is its storage mounted?') == 2


def test_storage_and_a_system_that_fail_for_a_while_are_failures_of_the_run(
  tmp_path, monkeypatch, caplog
):
  start, listed = subprocess.Popen, checkpoint.steps
  bad = [OSError(errno.EAGAIN, 'too many processes'), None, None]

  def popen(*arguments, **more):
    if error := bad.pop(0):
      raise error
    return start(*arguments, **more)

  def steps(workdir):
    if len(bad) == 2:
      raise checkpoint.CheckpointError('stale')
    return listed(workdir)

  monkeypatch.setattr(subprocess, 'Popen', popen)
  monkeypatch.setattr(checkpoint, 'steps', steps)
  assert run(tmp_path, (3, 'kill'), (9, 0)) == 0
  assert 'too many processes' in caplog.text and 'stale' in caplog.text and not bad


@by_linux
def test_what_a_run_leaves_behind_is_ended_before_the_next_start(tmp_path, caplog):
  assert run(tmp_path, (3, 'stopped'), (9, 0)) == 0
  assert not pathlib.Path('/dev/shm', (tmp_path / 'shared').read_text()).exists()
  assert 'nothing moved any more). It is started again' in caplog.text  # no other reason
  left = (tmp_path / 'left').read_text()
  end = time.monotonic() + 60
  while alive(left):
    assert time.monotonic() < end, 'it is still there'
    time.sleep(0.05)


SUPERVISED = """
import signal, sys, time
from ttt_jax.training import supervise
supervise.end_with_input()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print('ready', flush=True)
time.sleep(600)
"""


def test_a_run_ends_when_its_supervisor_does(tmp_path):
  pipe = subprocess.PIPE
  command = [sys.executable, '-c', SUPERVISED]
  with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
    assert process.stdout.readline() == 'ready\n' and process.poll() is None
    process.stdin.close()
    assert process.wait(300) == 7


def test_a_run_may_end_before_its_supervisor():
  script = SUPERVISED.replace('time.sleep(600)', 'sys.exit(3)')
  command = [sys.executable, '-c', script]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
    assert process.wait(300) == 3
