"""A pod to test with: launch/tpu_pod.sh in a copy of the project, beside a stub of gcloud."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import gcloud

import ttt_jax

ROOT = pathlib.Path(ttt_jax.__file__).parents[1]
# What may stand for ttt-train.
ECHO = 'echo "$WORKER: $PWD $COLOUR $*"; echo "malloc: $GLIBC_TUNABLES"'
WAIT = 'trap "echo ended; exit 143" TERM; echo "begun $*"; sleep 600 & wait'
FAR = 4_000_000_000  # seconds: newer than any file


class Pod:
  """A checkout of the project, and two workers once the pod is created."""

  def __init__(self, folder: pathlib.Path, program: str, parts=('launch',)):
    """Makes what the tool needs in `folder`.

    Args:
      folder: an empty one.
      program: what stands for ttt-train, in bash. Its folder is the code of the worker, and
        $WORKER its number.
      parts: of the project that are copied to the workers.
    """
    self.folder, self.checkout = folder, folder / 'checkout'
    self.write('bin/gcloud', f'exec {sys.executable} -S -E {gcloud.__file__} "$@"')
    self.write('template/bin/hostname', 'basename "$HOME"')
    self.write('template/venv/bin/ttt-train', program)
    mark = folder / 'template/venv/.installed-tpu'  # as if it had been installed
    mark.touch()
    os.utime(mark, (FAR, FAR))
    self.plan(['ACTIVE'])
    (folder / 'calls.txt').touch()
    for part in parts:
      shutil.copytree(
        ROOT / part, self.checkout / part, ignore=shutil.ignore_patterns('__pycache__')
      )
    shutil.copy(ROOT / 'setup.py', self.checkout)
    self.git('init', '--quiet')
    self.commit()

  def write(self, name: str, script: str) -> None:
    """Writes a script of bash."""
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/bash\n{script}\n')
    path.chmod(0o755)

  def plan(self, *states: list[str]) -> None:
    """Sets the states that the pod is seen in, for each time that it is created."""
    (self.folder / 'plan.json').write_text(json.dumps(states))

  def git(self, *words: str) -> str:
    who = ('-c', 'user.name=tester', '-c', 'user.email=tester@example.com')
    done = subprocess.run(
      ['git', *who, *words], cwd=self.checkout, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()

  def commit(self) -> str:
    """Commits what lies in the checkout; its hash."""
    self.git('add', '--all')
    self.git('commit', '--quiet', '--allow-empty', '--message=some work')
    return self.git('rev-parse', 'HEAD')

  def start(self, *words: str, **environment: str) -> subprocess.Popen:
    """Starts the tool; the environment is not that of the tests."""
    return subprocess.Popen(
      [self.checkout / 'launch/tpu_pod.sh', *words],
      env={
        'PATH': f'{self.folder / "bin"}:{os.environ["PATH"]}',
        'HOME': str(self.folder),
        'POD_STUB': str(self.folder),
        'POD_NAME': 'my-pod',
        'POD_ZONE': 'a-zone',
        'POD_TYPE': 'v5litepod-16',
        'POD_POLL': '0.1',
      }
      | environment,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def __call__(self, *words: str, code: int = 0, **environment: str) -> str:
    """Runs the tool; what it says. It must end with `code`."""
    process = self.start(*words, **environment)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said

  @property
  def calls(self) -> list[str]:
    """The verbs that gcloud was called with."""
    lines = (self.folder / 'calls.txt').read_text().splitlines()
    return [json.loads(line)[3] for line in lines]

  def worker(self, number: int, name: str) -> pathlib.Path:
    """A file of a worker, in the tool's folder there."""
    return gcloud.home(self.folder, number) / 'ttt_jax' / name

  def close(self) -> None:
    """Ends everything that was started."""
    gcloud.kill(f'POD_STUB={self.folder}')


def until(said, pod):
  """Asks for the status until all workers are said to be so; what is said then."""
  return wait_for(lambda: pod('status'), lambda now: now.count(said) == 2)


def wait_for(look, enough):
  """Looks until it is enough; what was seen then."""
  end = time.monotonic() + 300
  while not enough(now := look()):
    assert time.monotonic() < end, now
    time.sleep(0.02)
  return now


def begun(pod):
  """Waits until ttt-train has begun on all workers."""
  for number in range(2):
    wait_for(lambda number=number: log_of(pod, number), lambda log: 'begun' in log)


def log_of(pod, number):
  return pod.worker(number, 'train.log').read_text()
