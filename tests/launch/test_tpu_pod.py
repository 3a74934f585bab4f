"""The tool, with a stub of gcloud and a ttt-train that only says what it was told."""

import json
import re
import shlex

import pytest
from machines import by_linux
from pod import WAIT, begun, log_of, until, wait_for

pytest_plugins = ['pods']
pytestmark = by_linux


def gcloud_calls(said):
  return [shlex.split(line) for line in said.splitlines() if line.startswith('gcloud ')]


def test_from_nothing_to_nothing(make_pod):
  pod = make_pod()
  pod('create', '--spot')
  commit = pod.git('rev-parse', 'HEAD')
  assert f'[worker-1] ready: {commit}' in pod('setup')
  said = pod('train', '--env=COLOUR=dark red', '--', '-n', '--workdir=it\'s a "b"')
  assert '[worker-0] training started' in said and '[worker-1] training started' in said
  assert 'my-pod: ACTIVE' in until('] finished', pod)
  for number in range(2):
    log = log_of(pod, number)
    told = '--distributed -n --workdir=it\'s a "b"'
    source = pod.worker(number, 'source')
    assert f'{number}: {source} dark red {told}' in log and commit in log
    assert 'malloc: glibc' in log
  assert 'training does not run' in pod('stop')
  pod('delete')
  assert 'my-pod: not there' in pod('status')
  assert 'not there: create it first' in pod('setup', code=1)
  create = [json.loads(x) for x in (pod.folder / 'calls.txt').read_text().splitlines()]
  (create,) = [words for words in create if words[3] == 'create']
  assert set(create[4:]) == {
    *('my-pod', '--accelerator-type=v5litepod-16', '--runtime-version=v2-alpha-tpuv5-lite'),
    *('--node-id=my-pod', '--spot', '--zone=a-zone'),
  }


def test_all_may_be_said_twice(make_pod):
  pod = make_pod(WAIT)
  assert 'not there' in pod('delete') and 'not there' in pod('stop')
  states = ['WAITING_FOR_RESOURCES', 'PROVISIONING', 'ACTIVE']
  pod.plan(states)
  said = pod('create')
  assert re.findall('my-pod: (.*)', said) == states
  pod('create')
  assert pod.calls.count('create') == 1
  assert 'set it up first' in pod('train', '--', '--x', code=1)
  assert 'not set up' in pod('status') and 'not set up' in pod('stop')
  pod('setup')
  pod.worker(0, 'source/kept').touch()
  pod('setup')
  assert pod.worker(0, 'source/kept').exists()
  assert '[worker-1] idle' in pod('status')
  pod('train', '--', '--x')
  assert 'training runs already' in pod('train', '--', '--x')
  assert '[worker-1] running' in pod('status')
  begun(pod)
  pod.commit()
  assert 'stop it before' in pod('setup', code=1)
  for _ in range(2):
    pod('stop')
    assert '[worker-0] stopped' in pod('status') and 'ended' in log_of(pod, 1)
  assert log_of(pod, 0).count('begun') == 1
  pod('setup')
  assert not pod.worker(0, 'source/kept').exists()
  pod('delete')
  assert 'not there' in pod('delete')
  assert pod.calls.count('delete') == 1


OLD_PYTHON = """
case "$1 $2" in
  -c*) exit 1 ;;
  '-m uv') [ "$4" != find ] || echo "$HOME/bin/newer" ;;
esac"""
NEW_PYTHON = """
[ "$1 $2" = '-m venv' ] || exit 0
echo '#!/bin/bash
echo "$PWD $*" >> ~/installed' > "$3/bin/python"
chmod +x "$3/bin/python"
"""


def test_every_commit_is_installed_with_a_python_that_is_new_enough(make_pod):
  pod = make_pod()
  (pod.folder / 'template/venv/.installed-tpu').unlink()
  pod.write('template/bin/python3', OLD_PYTHON)
  pod.write('template/bin/newer', NEW_PYTHON)
  pod('create')
  for times in (1, 2):
    pod('setup')
    pod('setup')
    calls = pod.worker(1, '../installed').read_text().splitlines()
    assert len(calls) == 2 * times
    begin = f'{pod.worker(1, "source")} -m pip install '
    assert all(call.startswith(begin) for call in calls)
    ends = [' --require-hashes --requirement launch/tpu.lock', ' --no-deps --editable .']
    assert all(call.endswith(end) for call, end in zip(calls[-2:], ends))
    pod.commit()


def test_training_that_does_not_end_is_killed(make_pod):
  pod = make_pod('trap "" TERM; echo begun; while true; do sleep 60; done')
  pod('create')
  pod('setup')
  pod('train', '--', '--x')
  begun(pod)
  assert '[worker-0] training stopped' in pod('stop', '--grace=0')
  assert '[worker-0] stopped' in pod('status')


def test_failures_are_told_apart(make_pod):
  pod = make_pod('[ $WORKER = 0 ] || kill -9 $PPID; exit 3')
  pod('create')
  pod('setup')
  pod('stop')  # what was stopped before does not matter
  pod('train', '--', '--x')
  wait_for(lambda: pod('status'), lambda now: 'running' not in now)
  status = pod('status')
  assert '[worker-0] failed: exit code 3' in status and '[worker-1] died' in status


def test_logs_follow_the_first_worker(make_pod):
  pod = make_pod(WAIT)
  pod('create')
  pod('setup')
  pod('train', '--', '--one')
  process = pod.start('logs')
  for line in process.stdout:
    if 'begun --distributed --one' in line:
      break
  assert process.poll() is None


def test_several_slices_are_one_request(make_pod):
  pod = make_pod()
  said = pod('create', '--slices=2', '--create-flag=--network=n', '--dry-run')
  create = gcloud_calls(said)[1]
  assert create[3:6] == ['queued-resources', 'create', 'my-pod']
  wanted = {'--node-count=2', '--node-prefix=my-pod', '--network=n'}
  assert wanted < set(create) and '--node-id=my-pod' not in create


LIST = "list '--filter=name~/my-pod$' '--format=value(state.state)' --zone=a-zone --project=p"
EVERYWHERE = 'my-pod --node=all --worker=all --tunnel-through-iap'
WORKER = (
  "'--command=if [ -d ttt_jax/source ]; then {}bash ttt_jax/source/launch/worker.sh {}; "
  'else echo "[$(hostname)] not set up"; fi\' --zone=a-zone --project=p'
)
UNPACK = (
  'mkdir -p ttt_jax && exec 8> ttt_jax/setup.lock && flock 8 && '
  'rm -rf ttt_jax/new && mkdir ttt_jax/new && '
  'tar -xzmf ttt_jax-COMMIT.tar.gz -C ttt_jax/new && '
  'bash ttt_jax/new/launch/worker.sh setup COMMIT'
)
CREATE = (
  'create my-pod --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite '
  '--node-id=my-pod --zone=a-zone --project=p'
)
SETUP = [
  f'scp SOURCE my-pod:ttt_jax-COMMIT.tar.gz {EVERYWHERE[7:]} --zone=a-zone --project=p',
  f"ssh {EVERYWHERE} '--command={UNPACK}' --zone=a-zone --project=p",
]
LOOK = f'ssh {EVERYWHERE} {WORKER.format("", "status")}'
START = f'ssh {EVERYWHERE} {WORKER.format("A=1 ", "start --config=c")}'
RETRIED = [LIST, LOOK, LIST, *SETUP, START]


@pytest.mark.parametrize(
  'words,calls',
  [
    (['create'], [LIST, CREATE, LIST]),
    (['setup'], [LIST, *SETUP]),
    (['train', '--env=A=1', '--', '--config=c'], [LIST, LOOK, START]),
    (['train', '--retries=3', '--env=A=1', '--', '--config=c'], RETRIED),
    (['status'], [LIST, LOOK]),
    (['stop', '--grace=5'], [LIST, f'ssh {EVERYWHERE} {WORKER.format("", "stop 5")}']),
    (['delete'], [LIST, 'delete my-pod --force --quiet --zone=a-zone --project=p']),
    (
      ['logs'],
      [
        LIST,
        'ssh my-pod --node=0 --worker=0 --tunnel-through-iap '
        "'--command=tail -n 100 -F ttt_jax/train.log' --zone=a-zone --project=p",
      ],
    ),
  ],
  ids=['create', 'setup', 'train', 'retries', 'status', 'stop', 'delete', 'logs'],
)
def test_a_dry_run_prints_the_calls_and_makes_none(make_pod, words, calls):
  pod = make_pod()
  options = ['--dry-run', '--project=p', '--ssh-flag=--tunnel-through-iap']
  said = pod(words[0], *options, *words[1:])
  said = re.sub(r'/\S*/source.tar.gz', 'SOURCE', said)
  said = said.replace(pod.git('rev-parse', 'HEAD'), 'COMMIT')
  found = [line for line in said.splitlines() if line.startswith('gcloud ')]
  assert found == [f'gcloud compute tpus queued-resources {call}' for call in calls]
  assert not pod.calls


@pytest.mark.parametrize(
  'words,message',
  [
    ([], "begin with create, setup, train, status, logs, stop or delete, not ''"),
    (['begin'], "not 'begin'"),
    (['create', '--spott'], 'unknown option --spott'),
    (['create', 'here'], 'unknown option here'),
    (['create', '--zone'], 'unknown option --zone'),
    (['create', '--zone='], 'name the zone: --zone=ZONE'),
    (['status', '--name='], 'name the queued resource: --name=NAME'),
    (['create', '--type='], 'name the accelerator type: --type=TYPE'),
    (['create', '--type=v9-8'], "a TPU of type 'v9-8'? --runtime=IMAGE"),
    (['create', '--slices=two'], '--slices=two is not a whole number'),
    (['train', '--retries=-1', '--', '--x'], '--retries=-1 is not a whole number'),
    (['create', '--poll=soon'], '--poll=soon is not a number'),
    (['train'], 'train needs flags for ttt-train'),
    (['train', '--env=1=2', '--', '--x'], 'unknown option --env=1=2'),
  ],
)
def test_what_is_not_understood_is_named(make_pod, words, message):
  pod = make_pod()
  assert message in pod(*words, code=1)
  assert not pod.calls


def test_help_names_every_command_and_option(make_pod):
  said = make_pod()('--help')
  for word in ('create', 'delete', '--slices=N', '--retries=N', 'POD_ZONE'):
    assert word in said


def test_what_was_preempted_is_made_again_and_goes_on(make_pod):
  # It runs until it is taken away, once it has begun; then, on new machines, to its end.
  look = '[ -e $POD_STUB/again ]; new=$?; echo $WORKER >> $POD_STUB/starts'
  pod = make_pod(f'{look}; [ $new = 0 ] || {{ {WAIT}; }}')
  pod.plan(['ACTIVE', 'SUSPENDING', 'SUSPENDED'], ['ACTIVE'])
  starts, stays = pod.folder / 'starts', pod.folder / 'stays'
  stays.touch()
  process = pod.start('train', '--retries=1', '--', '--x')
  wait_for(lambda: starts.read_text() if starts.exists() else '', lambda now: len(now) == 4)
  first = pod.git('rev-parse', 'HEAD')
  pod.commit()
  (pod.folder / 'again').touch()
  stays.unlink()
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  assert 'starting again; retries left: 0' in said and '[worker-1] finished' in said
  assert sorted(starts.read_text().split()) == ['0', '0', '1', '1']
  asked = [call for call in pod.calls if call in ('create', 'delete')]
  assert asked == ['create', 'delete', 'create']
  assert pod.worker(1, 'commit').read_text().strip() == first


def test_retries_have_an_end(make_pod):
  pod = make_pod('exit 1')
  said = pod('train', '--retries=1', '--', '--x', code=1)
  assert said.count('[worker-0] training started') == 2
  assert 'given up after 1 retries; my-pod costs until deleted' in said
  assert 'delete' not in pod.calls


def test_a_stop_ends_the_retries(make_pod):
  pod = make_pod(WAIT)
  process = pod.start('train', '--retries=5', '--', '--x')
  until('] running', pod)
  pod('stop')
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0 and '[worker-0] stopped' in said


def test_a_request_that_fails_is_not_repeated(make_pod):
  pod = make_pod()
  pod.plan(['WAITING_FOR_RESOURCES', 'FAILED'], ['ACTIVE'])
  assert 'my-pod is FAILED' in pod('create', code=1)
  assert pod.calls.count('create') == 1
  pod('create')  # asked for once more, it is
  assert pod.calls.count('delete') == 1


def test_waiting_has_an_end(make_pod):
  pod = make_pod()
  pod.plan(['WAITING_FOR_RESOURCES'])
  assert 'create again to go on waiting' in pod('create', '--wait=1', code=1)


def test_machines_that_do_not_answer_are_no_success(make_pod):
  pod = make_pod()
  pod('create')
  for number in range(2):
    pod.worker(number, '..').resolve().rename(pod.folder / f'away-{number}')
  assert 'not every slice of my-pod answers' in pod('status', code=1)
