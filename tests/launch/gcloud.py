"""Plays `gcloud compute tpus queued-resources`: one pod, whose workers are folders.

Everything lies in the folder that $POD_STUB names:

    calls.txt     one line of JSON a call
    plan.json     for each time the pod is created, the states that it is then seen in; the
                  last one stays
    stays         while it is there, so does any state
    pod.json      the pod as it is now, if there is one
    lock          held by the call that looks at the pod or changes it: tests call at once
    template/     what a worker has when it is new
    worker-0/ ... their home folders, while there is a pod
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

GONE = ('SUSPENDED', 'FAILED')
SHARED = {'--zone', '--project'}
KNOWN = {
  'list': SHARED | {'--filter', '--format'},
  'create': SHARED
  | {'--accelerator-type', '--runtime-version', '--node-id', '--node-count', '--node-prefix'}
  | {'--spot', '--network'},
  'delete': SHARED | {'--force', '--quiet'},
  'ssh': SHARED | {'--node', '--worker', '--command', '--tunnel-through-iap'},
  'scp': SHARED | {'--node', '--worker', '--tunnel-through-iap'},
}
STUB = pathlib.Path(os.environ.get('POD_STUB', '/nowhere'))
WORKERS = 2


@contextlib.contextmanager
def alone() -> Iterator[None]:
  """Keeps other calls from the pod."""
  with (STUB / 'lock').open('w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def processes(*marks: str) -> list[int]:
  """Processes whose environment has all of `marks`, NAME=VALUE."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/environ'):
    try:
      environment = path.read_bytes().split(b'\0')
    except OSError:  # it has ended, or is somebody else's
      continue
    if all(mark.encode() in environment for mark in marks):
      found.append(int(path.parent.name))
  return found


def kill(*marks: str) -> None:
  """Ends all `processes` but this one, until none is left."""
  while pids := [pid for pid in processes(*marks) if pid != os.getpid()]:
    for pid in pids:
      try:
        os.kill(pid, signal.SIGKILL)
      except ProcessLookupError:
        continue


def home(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / f'worker-{number}'


def empty() -> None:
  """The machines of the pod are gone."""
  for number in range(WORKERS):
    kill(f'POD_STUB={STUB}', f'HOME={home(STUB, number)}')
    shutil.rmtree(home(STUB, number), ignore_errors=True)


@alone()
def seen() -> dict | None:
  """The pod in its next state."""
  path = STUB / 'pod.json'
  if not path.exists():
    return None
  pod = json.loads(path.read_text())
  if len(pod['states']) > 1 and pod['seen'] and not (STUB / 'stays').exists():
    pod['states'].pop(0)
  pod['seen'] = True
  path.write_text(json.dumps(pod))
  if pod['states'][0] in GONE:
    empty()
  return pod


def list_(names, flags):
  pod = seen()
  if pod and flags['--filter'] == f'name~/{pod["name"]}$':
    print(pod['states'][0])


@alone()
def create(names, flags):
  path = STUB / 'pod.json'
  if path.exists():
    sys.exit('ERROR: (gcloud) ALREADY_EXISTS')
  plan = json.loads((STUB / 'plan.json').read_text())
  states = plan.pop(0)
  (STUB / 'plan.json').write_text(json.dumps(plan))
  path.write_text(json.dumps({'name': names[0], 'states': states, 'seen': False}))
  for number in range(WORKERS):
    shutil.copytree(STUB / 'template', home(STUB, number))


@alone()
def delete(names, flags):
  if not (STUB / 'pod.json').exists():
    sys.exit('ERROR: (gcloud) NOT_FOUND')
  (STUB / 'pod.json').unlink()
  empty()


def chosen(flags) -> list[int]:
  which = flags['--worker']
  return list(range(WORKERS)) if which == 'all' else [int(which)]


def ssh(names, flags):
  print('Using ssh batch size of 64.', file=sys.stderr)
  running = started(chosen(flags), flags['--command'])
  sys.exit(max((process.wait() for process in running), default=0))


@alone()
def started(numbers: list[int], command: str) -> list[subprocess.Popen]:
  """The command on those workers that there are."""
  running = []
  for number in numbers:
    if not home(STUB, number).exists():  # as gcloud does: no error
      print(f'Could not prepare worker {number}', file=sys.stderr)
      continue
    folder = home(STUB, number)
    environment = {
      'HOME': str(folder),
      'PATH': f'{folder / "bin"}:{os.environ["PATH"]}',
      'POD_STUB': str(STUB),
      'VENV': str(folder / 'venv'),
      'WORKER': str(number),
    }
    words = ['bash', '-c', command]
    running.append(subprocess.Popen(words, cwd=folder, env=environment))
  return running


@alone()
def scp(names, flags):
  source, target = names
  for number in chosen(flags):
    shutil.copy(source, home(STUB, number) / target.partition(':')[2])


def main(words):
  with (STUB / 'calls.txt').open('a') as calls:
    calls.write(json.dumps(words) + '\n')
  prefix, (command, *rest) = words[:3], words[3:]
  assert prefix == ['compute', 'tpus', 'queued-resources'], prefix
  flags = dict(word.partition('=')[::2] for word in rest if word.startswith('--'))
  unknown = set(flags) - KNOWN[command]
  if unknown or '--zone' not in flags:
    sys.exit(f'ERROR: (gcloud) {command}: {unknown or "no zone"}')
  verbs = {'list': list_, 'create': create, 'delete': delete, 'ssh': ssh, 'scp': scp}
  verbs[command]([word for word in rest if not word.startswith('--')], flags)


if __name__ == '__main__':
  main(sys.argv[1:])
