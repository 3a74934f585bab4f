"""What a run that goes on may find changed."""

import importlib.metadata
import json

import numpy as np
import pytest
from conftest import make_config

from ttt_jax import checkpoint, description, parameters, resuming
from ttt_jax import config as config_lib


@pytest.fixture
def run(tmp_path):
  """A folder that describes a run of the defaults, on two data sets."""
  said = description.of(make_config(), 'words', ['one', 'two'], 2)
  (tmp_path / description.FILE).write_text(json.dumps(said))
  return tmp_path


def start(run, vocabulary='words', records=('one', 'two'), packing=2, allowed=(), **changes):
  said = description.of(make_config(**changes), vocabulary, records, packing)
  resuming.refuse_another(run, said, allowed)


HARMLESS = {
  'train__steps': 9,
  'mesh__fsdp': 2,
  'data__workers': 2,
  'data__directory': 'moved',
  'model__attention': 'dense',
  'optimizer__learning_rate': 0.5,
  'guard__skips': 3,
}


def test_a_run_of_which_only_checkpoints_are_left_is_compared_by_what_they_say(tmp_path):
  said = description.of(make_config(), 'words', ['one', 'two'], 2)
  parameters.save(tmp_path, {'a': np.zeros(3)}, said)
  start(tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match=r'another seed \(0; now 1\)'):
    start(tmp_path, seed=1)


def test_what_differs_is_shown_with_both_values(run, caplog):
  start(run)
  assert not caplog.text
  with caplog.at_level('INFO', logger='absl'):
    start(run, **HARMLESS)
  lines = [line.strip() for line in caplog.text.splitlines() if '->' in line]
  assert sorted(line.split(':')[0].replace('.', '__') for line in lines) == sorted(HARMLESS)
  assert 'train.steps: 1000 -> 9' in lines and 'data.directory:  -> moved' in lines


def test_other_versions_of_libraries_are_shown_and_go_on(run, caplog, monkeypatch):
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: f'{name} of tomorrow')
  with caplog.at_level('INFO', logger='absl'):
    start(run)
  assert f'libraries.numpy: {np.__version__} -> numpy of tomorrow' in caplog.text


@pytest.mark.parametrize(
  'change',
  [
    {'seed': 1},
    {'vocabulary': 'others'},
    {'packing': 3},
    {'records': ('one', 'another')},
    {'data__row_length': 64},
    {'data__batch_size': 16},
    {'data__window': 5},
    {'data__temperature': 2.0},
    {'mask__audio': 'block'},
    {'objective__ppm': 0.1},
    {'model__layers': 3},
    {'train__freeze': 'embedding'},
    {'optimizer__name': 'muon'},
  ],
)
def test_what_makes_another_run_is_refused_unless_it_is_allowed_by_its_name(run, change):
  (name,) = change
  name = name.replace('__', '.')
  with pytest.raises(checkpoint.CheckpointError, match=f'another {name} .*--allow={name}$'):
    start(run, **change)
  with pytest.raises(checkpoint.CheckpointError, match=f'another {name} '):
    start(run, **change, allowed=['data.threads', 'data.split'])
  start(run, **change, allowed=[name])


def test_all_that_is_refused_is_named_at_once(run):
  changes = {'seed': 1, 'data__row_length': 64, 'train__steps': 3}
  with pytest.raises(checkpoint.CheckpointError, match='seed,data.row_length$') as error:
    start(run, **changes)
  assert 'another seed (0; now 1), another data.row_length (128; now 64)' in str(error.value)
  start(run, **changes, allowed=['seed', 'data.row_length', 'data.split'])


def test_only_settings_can_be_allowed(run):
  with pytest.raises(config_lib.ConfigError, match='no setting data.row_lenght .*row_length'):
    start(run, allowed=['data.row_lenght'])
