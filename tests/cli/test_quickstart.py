"""The quickstart: what is skipped, what is refused, and what its flags come to."""

import json
import subprocess
import sys

import pytest
from test_cli import WORLD, toy_config
from tools import ROOT, tool

from data_pipelines.little_world import prepare
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.cli import quickstart
from ttt_jax.evaluation import evaluate, offline


@pytest.fixture
def stages(monkeypatch):
  """The names of the stages that were called, which take no time; those in `broken` fail."""
  called, broken = [], set()

  def stub(name):
    def stage(*arguments, **_):
      called.append(name)
      if name in broken:
        raise errors.UserError(f'{name} fails')
      if name == 'prepare':
        arguments[0].mkdir()

    return stage

  def judge(suite, checkpoints, out, **_):
    called.append('evaluate')
    task = {'items': 10, 'failed': {'run': 6 if 'evaluate' in broken else 0}}
    task['failures'] = [{'checkpoint': 'run', 'item': 'a', 'stage': 'listen', 'reason': 'deaf'}]
    results = {'suite': {'tolerance': 0.5}, 'tasks': {'say': task}}
    with open(f'{out}/results.json', 'w', encoding='utf-8') as file:
      json.dump(results, file)
    if wrong := evaluate.too_many_failed(results):
      raise evaluate.EvaluationError(wrong)

  monkeypatch.setattr(prepare, 'prepare', stub('prepare'))
  monkeypatch.setattr(quickstart.train, 'train', stub('train'))
  monkeypatch.setattr(quickstart, '_trained', lambda run, steps: 'train' in called)
  monkeypatch.setattr(quickstart, '_suite', lambda data: None)
  monkeypatch.setattr(offline, 'run', judge)
  return called, broken


def start(folder):
  return quickstart.quickstart(toy_config(), WORLD, folder, 0.0, '')


def test_an_evaluation_in_which_too_many_failed_is_done_again(stages, tmp_path):
  called, broken = stages
  broken.add('evaluate')
  for _ in range(2):
    with pytest.raises(evaluate.EvaluationError, match='6 of 10 items failed'):
      start(tmp_path)
  broken.clear()
  for _ in range(2):
    assert start(tmp_path)['tasks']['say']['failed'] == {'run': 0}
  assert called == ['prepare', 'train', *['evaluate'] * 3]


def test_a_folder_in_which_nothing_was_made_is_for_anything(stages, tmp_path):
  called, broken = stages
  broken.add('prepare')
  with pytest.raises(errors.UserError, match='prepare fails'):
    start(tmp_path)
  broken.clear()
  other = toy_config()
  other.train.steps = 5
  quickstart.quickstart(other, WORLD, tmp_path, 0.0, '')
  with pytest.raises(config_lib.ConfigError, match='holds a quickstart with other settings'):
    start(tmp_path)
  assert called == ['prepare', 'prepare', 'train', 'evaluate']


def test_a_world_that_cannot_be_leaves_no_folder(tmp_path):
  code, said = tool('quickstart', f'--folder={tmp_path / "new"}', '--voices=9')
  assert code != 0 and 'error: --voices=9: it must be' in said and 'Traceback' not in said, said
  assert not (tmp_path / 'new').exists()


def test_a_fast_run_is_short_but_for_what_was_asked():
  script = """
import sys
from absl import flags
from ttt_jax.cli import quickstart

def noted(config, world, folder, seconds, note):
  print(config.train.steps, config.sampling.max_audio, config.optimizer.learning_rate,
        world.strings, world.tests, world.ask_every, folder, bool(note))

quickstart.quickstart = noted
quickstart.summary.table = lambda results: ''
for words in ([], ['--fast'], sys.argv[1:]):
  flags.FLAGS.unparse_flags()
  sys.argv = ['x', *words]
  flags.FLAGS(sys.argv)
  quickstart.main()
"""
  given = ['--fast', '--config.train.steps=7', '--config.sampling.max_audio=9', '--tests=100']
  given += ['--strings=3000', '--folder=mine', '--config.optimizer.learning_rate=0.5']
  command = [sys.executable, '-c', script, *given]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  whole, fast, mixed = [line.split() for line in done.stdout.splitlines() if ' 0.' in line]
  assert whole[3:] == ['3000', '100', '3', 'runs/quickstart', 'False']
  assert fast[2] == whole[2] and int(fast[0]) < int(whole[0]) and int(fast[1]) < int(whole[1])
  assert fast[3:] == ['400', '12', '12', 'runs/quickstart-fast', 'True']
  assert mixed == ['7', '9', '0.5', '3000', '100', '12', 'mine', 'True']
  assert '--checkpoint=mine/run --speak=' in done.stdout
