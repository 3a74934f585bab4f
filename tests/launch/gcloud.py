"""Plays `gcloud compute tpus queued-resources`: one pod, whose workers are folders.

Everything lies in the folder that $POD_STUB names:

    calls.txt     one line of JSON a call
    plan.json     for each time the pod is created, the states that it is then seen in; the
                  last one stays
    stays         while it is there, so does any state
    pod.json      the pod as it is now, if there is one
    template/     what a worker has when it is new
    worker-0/ ... their home folders, while there is a pod
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

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
  running = []
  for number in chosen(flags):
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
    command = ['bash', '-c', flags['--command']]
    running.append(subprocess.Popen(command, cwd=folder, env=environment))
  sys.exit(max((process.wait() for process in running), default=0))


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
