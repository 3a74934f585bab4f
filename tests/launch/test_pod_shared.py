"""A pod that several use at once, that answers in part, or whose disk is full."""

import os
import re
import signal
import subprocess

import pytest
from machines import by_linux
from pod import WAIT, begun, log_of, until, wait_for

pytest_plugins = ['pods']
pytestmark = by_linux


@pytest.fixture
def ready(make_pod):
  """A pod that is set up, with a program."""

  def make(program=WAIT):
    pod = make_pod(program)
    pod('create')
    pod('setup')
    return pod

  return make


def on_worker(pod, *words):
  """Calls launch/worker.sh on worker 1 by its own shell, as gcloud does that repeats a call."""
  home = pod.worker(1, '..').resolve()
  path = f'{home / "bin"}:{os.environ["PATH"]}'
  given = {'HOME': str(home), 'PATH': path, 'VENV': str(home / 'venv'), 'WORKER': '1'}
  return subprocess.Popen(
    ['bash', 'ttt_jax/source/launch/worker.sh', *words],
    cwd=home,
    env=given | {'POD_STUB': str(pod.folder)},
    stdout=subprocess.PIPE,
    text=True,
  )


def until_said(process, text):
  """Reads what the tool says up to a line with `text`."""
  assert any(text in line for line in process.stdout)


def test_nothing_starts_where_one_worker_is_not_set_up(ready):
  pod = ready()
  pod.worker(1, 'commit').unlink()
  pod.worker(1, 'train.stopped').touch()
  assert 'set it up first' in pod('train', '--', '--x', code=1)
  assert '[worker-0] idle' in pod('status') and '[worker-1] not set up' in pod('status')
  started = on_worker(pod, 'start', '--x')
  assert '[worker-1] not set up' in started.communicate(timeout=300)[0] and started.returncode
  assert pod.worker(1, 'train.stopped').exists()
  pod('setup')
  pod('train', '--', '--x')
  until('] running', pod)


def test_nothing_starts_while_somebody_sets_up(ready):
  pod = ready()
  held = subprocess.Popen(['flock', pod.worker(1, 'setup.lock'), 'cat'], stdin=subprocess.PIPE)
  lock = ['flock', '--nonblock', pod.worker(1, 'setup.lock'), 'true']
  wait_for(lambda: subprocess.run(lock, check=False).returncode, bool)
  assert '[worker-1] not set up' in pod('train', '--', '--x', code=1)
  held.communicate(timeout=300)
  pod('stop')
  assert '[worker-1] training started' in pod('train', '--', '--x')


def test_training_that_runs_on_some_workers_is_not_joined(ready):
  pod = ready()
  pod('train', '--', '--x')
  begun(pod)
  assert on_worker(pod, 'stop', '9').wait(300) == 0
  said = pod('train', '--', '--x', code=1)
  assert 'runs on some workers' in said and '[worker-1] stopped' in said


def test_workers_of_one_slice_do_not_stand_for_another(ready):
  pod = ready()
  for number in range(2):
    script = pod.worker(number, '../bin/hostname')
    script.write_text(f'#!/bin/bash\necho t1v-n-{number}-w-0\n')
  assert '[t1v-n-1-w-0] idle' in pod('status', '--slices=2')
  for number in range(2):
    script = pod.worker(number, '../bin/hostname')
    script.write_text(f'#!/bin/bash\necho t1v-n-0-w-{number}\n')
  assert 'not every slice of my-pod answers' in pod('status', '--slices=2', code=1)


def test_without_room_for_its_number_training_does_not_begin(ready):
  pod = ready()
  pod.worker(1, 'train.pid').symlink_to('/dev/full')
  assert on_worker(pod, 'start', '--x').wait(300) == 0
  status = wait_for(lambda: pod('status'), lambda now: '[worker-1] running' not in now)
  assert '[worker-1] failed: exit code 1' in status
  assert 'begun' not in log_of(pod, 1)


@pytest.fixture
def held(ready):
  """A pod on whose worker 1 somebody seems to train: whose number, the test says."""
  pod = ready()
  lock = pod.worker(1, 'train.lock')
  with subprocess.Popen(['flock', lock, 'cat'], stdin=subprocess.PIPE) as held:
    wait_for(lambda: pod('status'), lambda now: '[worker-1] running' in now)
    yield pod, held
    held.kill()


def test_a_stop_tells_each_that_it_finds(held):
  pod, lock = held
  source, number = pod.worker(1, 'source'), pod.worker(1, 'train.pid')
  first, second = (subprocess.Popen(['sleep', '600'], cwd=source) for _ in range(2))
  number.write_text(f'{first.pid}\n')
  stop = on_worker(pod, 'stop', '1000')
  assert first.wait(300) == -signal.SIGTERM
  pod.worker(1, 'train.stopped').unlink()  # as somebody does who starts it
  number.write_text(f'{second.pid}\n')
  assert second.wait(300) == -signal.SIGTERM and stop.poll() is None
  lock.communicate(timeout=300)
  assert stop.wait(300) == 0 and pod.worker(1, 'train.stopped').exists()


def test_a_start_that_comes_while_it_is_stopped_undoes_nothing(held):
  pod, _ = held
  pod.worker(1, 'train.stopped').touch()
  start = on_worker(pod, 'start', '--x')
  assert 'training runs already' in start.communicate(timeout=300)[0]
  assert pod.worker(1, 'train.stopped').exists()


def test_a_stop_of_yesterday_does_not_end_tries_that_have_begun_nothing(ready):
  pod = ready()
  pod('stop')
  gcloud = pod.folder / 'bin/gcloud'
  works = gcloud.read_text()
  fails = 'case "$*" in *" scp "*) exit 1 ;; esac'
  gcloud.write_text(works.replace('exec', f'{fails}\nexec'))
  process = pod.start('train', '--retries=9', '--', '--x', POD_POLL='1')
  until_said(process, 'starting again')
  gcloud.write_text(works)
  until('] running', pod)
  pod('stop')
  assert process.wait(300) == 0


def test_a_number_that_is_left_from_before_is_nobodys(held):
  pod, lock = held
  other = subprocess.Popen(['sleep', '600'])
  pod.worker(1, 'train.pid').write_text(f'{other.pid}\n')
  stop = on_worker(pod, 'stop', '0')
  with pytest.raises(subprocess.TimeoutExpired):
    stop.wait(1)
  lock.communicate(timeout=300)
  assert stop.wait(300) == 0 and other.poll() is None
  other.kill()


def test_what_was_deleted_is_not_made_again(ready):
  pod = ready()
  process = pod.start('train', '--retries=3', '--', '--x')
  until('] running', pod)
  pod('delete')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 1 and 'error: somebody has deleted my-pod' in said
  assert pod.calls.count('create') == 1


def test_a_request_that_was_deleted_is_not_made_again(make_pod):
  pod = make_pod()
  pod.plan(['WAITING_FOR_RESOURCES'], ['ACTIVE'])
  process = pod.start('create')
  wait_for(lambda: pod.calls.count('list'), lambda seen: seen > 2)
  pod('delete')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 1 and 'error: somebody has deleted my-pod' in said
  assert pod.calls.count('create') == 1


def test_a_stop_between_two_tries_ends_them(ready):
  pod = ready('exit 1')
  process = pod.start('train', '--retries=5', '--', '--x', POD_POLL='2')
  until_said(process, 'starting again')
  pod('stop')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0 and '[worker-0] stopped' in said


def test_what_cannot_be_stopped_is_said(make_pod):
  pod = make_pod()
  pod.plan(['WAITING_FOR_RESOURCES'])
  pod('create', '--wait=1', code=1)
  said = pod('stop', code=1)
  assert re.search('error: my-pod is WAITING_FOR_RESOURCES.* end that, or delete', said)


def test_the_same_command_picks_a_run_up_that_has_another_commit(ready):
  pod = ready()
  pod('train', '--', '--x')
  begun(pod)
  pod.commit()
  process = pod.start('train', '--retries=1', '--', '--x')
  until_said(process, 'training runs already')
  pod('stop')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0 and '[worker-1] stopped' in said
