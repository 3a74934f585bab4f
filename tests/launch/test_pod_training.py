"""Two workers of a pod train together; one dies, one is told to stop, and the run goes on."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pod as pod_lib
import pytest
from conftest import TOY_FLAGS
from machines import by_linux, xla_flags

from ttt_jax import checkpoint, parameters

pytestmark = by_linux

STEPS, EVERY = 60, 5
FREE = 4 * EVERY  # steps that a start takes before it waits for the gate
PATIENCE = 600.0  # seconds, of which a busy machine may need many

# What its metadata tell a TPU VM, a worker is told here. Its code is what was copied to it,
# and it has no torch, which tensorboardX would import: that takes longer than all else.
PROGRAM = f"""
export PYTHONPATH=$PWD:$WITHOUT_TORCH
exec {sys.executable} -m gated \
  --coordinator=127.0.0.1:$PORT --processes=2 --process=$WORKER --heartbeat=8 "$@"
"""

# ttt-train, but it does not end before something has happened to it, however late that is.
GATED = f"""
import itertools, os, pathlib, time
from ttt_jax import sharding
from ttt_jax.cli import train

put, taken, gate = sharding.put_batch, itertools.count(), pathlib.Path(os.environ['GATE'])

def held(*args):
  if next(taken) >= {FREE}:
    while not gate.exists():
      time.sleep(0.02)
  return put(*args)

sharding.put_batch = held
train.run()
"""
FLAGS = [
  *TOY_FLAGS,
  '--config.optimizer.warmup_steps=2',
  f'--config.train.steps={STEPS}',
  f'--config.train.checkpoint_every={EVERY}',
  '--config.train.log_every=1',
  '--config.mesh.fsdp=4',
]


def environment(devices: int, folder: pathlib.Path) -> dict[str, str]:
  """Variables for virtual devices."""
  made = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': xla_flags(devices)}
  return made | {'JAX_DISABLE_MOST_OPTIMIZATIONS': 'true', 'WITHOUT_TORCH': str(folder / 'lib')}


def metrics(run: pathlib.Path) -> dict[int, dict]:
  """What was reported of each step, the last time that it was made."""
  path = run / 'metrics.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return {json.loads(line)['step']: json.loads(line) for line in lines}


def wait_for(done, pod) -> None:
  end = time.monotonic() + PATIENCE
  while not done():
    logs = [pod.worker(number, 'train.log') for number in range(2)]
    text = '\n'.join(log.read_text()[-3000:] for log in logs if log.exists())
    assert time.monotonic() < end, text
    time.sleep(0.05)


@pytest.fixture
def pod(tmp_path):
  parts = ('launch', 'ttt_jax', 'data_pipelines', 'configs')
  made = pod_lib.Pod(tmp_path, PROGRAM, parts)
  (tmp_path / 'lib').mkdir()
  (tmp_path / 'lib/torch.py').write_text('raise ImportError\n')
  (tmp_path / 'lib/gated.py').write_text(GATED)
  yield made
  made.close()


@pytest.fixture
def alone(pod, toy_data, tmp_path):
  """Starts a run in one process of four devices, in a folder; the process."""
  started = []

  def start(run):
    command = [sys.executable, '-m', 'ttt_jax.cli.train', *FLAGS]
    variables = environment(4, tmp_path)
    path = f'{pod.checkout}:{variables["WITHOUT_TORCH"]}'
    process = subprocess.Popen(
      [*command, f'--config.data.directory={toy_data}', f'--workdir={run}'],
      cwd=pod.checkout,
      env=os.environ | variables | {'PYTHONPATH': path},
      stderr=subprocess.DEVNULL,
    )
    started.append(process)
    return process

  yield start
  for process in started:
    process.kill()
    process.wait()


def test_a_run_goes_on_when_a_worker_has_died_or_was_stopped(pod, alone, toy_data, tmp_path):
  other = tmp_path / 'alone'
  undisturbed = alone(other)
  run = tmp_path / 'run'
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  gate = tmp_path / 'gate'
  settings = environment(2, tmp_path) | {'PORT': port, 'GATE': str(gate)}
  train = ['train', *(f'--env={key}={value}' for key, value in settings.items()), '--', *FLAGS]
  train += [f'--config.data.directory={toy_data}', f'--workdir={run}']
  pod('create')
  pod('setup')
  pod(*train)

  wait_for(lambda: checkpoint.steps(run), pod)
  os.kill(int(pod.worker(1, 'train.pid').read_text()), signal.SIGKILL)
  gate.touch()
  wait_for(lambda: 'running' not in pod('status'), pod)
  gate.unlink()
  said = pod('status')
  assert '[worker-0] failed' in said and '[worker-1] failed: exit code 137' in said
  saved, reached = checkpoint.latest(run), max(metrics(run))
  assert EVERY <= saved <= reached < STEPS

  pod(*train)
  wait_for(lambda: max(metrics(run)) > reached, pod)
  os.kill(int(pod.worker(1, 'train.pid').read_text()), signal.SIGTERM)  # it alone
  gate.touch()
  wait_for(lambda: 'running' not in pod('status'), pod)
  stopped = max(metrics(run))
  assert reached < stopped < STEPS and checkpoint.latest(run) == stopped
  said = pod('status')
  for number in range(2):
    assert f'[worker-{number}] failed: exit code 143' in said
    log = pod.worker(number, 'train.log').read_text()
    assert f'going on from step {saved}\n' in log and f'stopped: step {stopped} is saved' in log

  assert alone(run).wait(PATIENCE) == 0  # the two were one half each, this one is the whole
  assert undisturbed.wait(PATIENCE) == 0
  together, single = metrics(run), metrics(other)
  assert sorted(together) == sorted(single) == list(range(1, STEPS + 1))
  for step, figures in together.items():
    for key in ('loss', 'gradient_norm', 'learning_rate'):
      np.testing.assert_allclose(figures[key], single[step][key], rtol=1e-4, err_msg=str(step))
  assert single[STEPS]['text_loss'] < 0.8 * single[1]['text_loss']
  params, wanted = parameters.restore(run), parameters.restore(other)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), params, wanted)
