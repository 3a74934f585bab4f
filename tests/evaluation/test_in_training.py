"""Evaluation during training says what an evaluation of the checkpoint says afterwards."""

import errno
import json
import pathlib

import jax
import numpy as np
import pytest
from conftest import make_config
from jax.sharding import NamedSharding, PartitionSpec

from ttt_jax import json_file, json_lines, parameters
from ttt_jax.evaluation import evaluate, in_training, offline, suite, suite_file
from ttt_jax.sampling import decoder
from ttt_jax.training import train

SUITE = """
data: {data}
resamples: 20
tasks:
- name: say
  limit: 3
  sampling: {{steps_per_block: 1, text_temperature: 0.7}}
  metrics: [wer]
- name: all
  limit: 2
  metrics: [{{metric: likelihood, samples: 1}}]
"""


def settings(toy_data, folder, **more):
  path = pathlib.Path(folder, 'suite.yaml')
  path.write_text(SUITE.format(data=toy_data))
  more = {'evaluation__every': 2, 'evaluation__suite': str(path)} | more
  return make_config(
    data__directory=str(toy_data),
    sampling__max_text=3,
    sampling__max_audio=4,
    train__steps=3,
    train__log_every=1,
    mesh__fsdp=2,
    mesh__sequence=2,
    **more,
  )


@pytest.fixture(scope='module')
def trained(toy_data, tmp_path_factory):
  folder = tmp_path_factory.mktemp('judged')
  config = settings(toy_data, folder)
  judge = in_training.judge(config, folder / 'run')
  train.train(config, folder / 'run', judge=judge)
  return folder, judge


def answers(folder) -> dict:
  """Of all checkpoints, by what they depend on."""
  out = {}
  for path in pathlib.Path(folder).glob('say-answers-*.jsonl'):
    about, *lines = map(json.loads, path.read_text().splitlines())
    out[about['checkpoint']] = dict(lines)
  return out


def test_figures_come_with_the_other_reports(trained):
  folder, _ = trained
  lines = [json.loads(line) for line in (folder / 'run' / 'metrics.jsonl').open()]
  judged = [line for line in lines if 'evaluation/say/wer' in line]
  assert [line['step'] for line in judged] == [2, 3]  # and at the end
  for line in judged:
    path = folder / 'run' / in_training.DIRECTORY / f'step-{line["step"]}.json'
    assert in_training.figures(json.loads(path.read_text())) | {'step': line['step']} == line
    assert line['evaluation/all/text_nats'] > 0 and line['evaluation/say/failed'] == 0
  others = [line for line in lines if 'loss' in line]
  assert [line['step'] for line in others] == [1, 2, 3]


def test_a_checkpoint_says_the_same_afterwards(trained, tmp_path):
  folder, _ = trained
  whole = suite_file.read(folder / 'suite.yaml')
  after = offline.run(whole, [str(folder / 'run')], str(tmp_path))
  before = json.loads((folder / 'run' / 'evaluation' / 'step-3.json').read_text())
  inside, outside = (
    answers(folder / 'run' / 'evaluation' / 'items'),
    answers(tmp_path / 'items'),
  )
  ((checkpoint, said),) = outside.items()
  assert said == inside[checkpoint] and len(said) == 3 and len(inside) == 2
  assert after['checkpoints'] == before['checkpoints']
  assert after['tasks']['say'] == before['tasks']['say']
  for figure, about in before['tasks']['all']['figures'].items():
    found = after['tasks']['all']['figures'][figure]['checkpoints']['run']
    expected = about['checkpoints']['run']
    np.testing.assert_allclose(
      [found[key] for key in ('value', 'low', 'high')],
      [expected[key] for key in ('value', 'low', 'high')],
      rtol=1e-4,
    )


def test_a_page_is_made_of_what_was_answered_in_training(trained, monkeypatch):
  def refuse(*_):
    raise AssertionError('it was answered before')

  monkeypatch.setattr(decoder.Decoder, 'answer', refuse)
  folder, _ = trained
  out = folder / 'run' / in_training.DIRECTORY
  results = offline.run(suite_file.read(folder / 'suite.yaml'), [str(folder / 'run')], str(out))
  assert (out / evaluate.REPORT).exists()
  before = json.loads((out / 'step-3.json').read_text())
  assert results['tasks'] == before['tasks']


def test_nothing_is_compiled_twice_and_no_parameters_are_kept(trained):
  _, judge = trained
  (made,) = judge._candidate._decoders.values()
  assert len(made.compiled) == len(set(made.compiled)) > 1
  assert judge._candidate.params is None and made._passes._params == {}


@pytest.mark.parametrize('processes', [1, 2])
@pytest.mark.parametrize(
  'owner,name', [(json_lines, 'append'), (json_file, 'write')], ids=['answers', 'results']
)
def test_a_full_disk_loses_an_evaluation_and_not_the_run_unless_others_wait(
  trained, tmp_path, monkeypatch, caplog, owner, name, processes
):
  folder, judge = trained
  made = judge._candidate

  def full(*_, **__):
    monkeypatch.setattr(jax, 'process_count', lambda: processes)
    raise OSError(errno.ENOSPC, 'full')

  monkeypatch.setattr(owner, name, full)
  if owner is json_lines:  # nothing is kept yet
    monkeypatch.setattr(judge._evaluation, '_kept', tmp_path)
  params = parameters.restore(folder / 'run')
  params = jax.device_put(params, NamedSharding(made._mesh, PartitionSpec()))
  if owner is json_lines and processes == 2:
    with pytest.raises(OSError, match='full'):
      judge(made.assets, made._mesh, 3, params)
    return
  assert judge(made.assets, made._mesh, 3, params) == {} and made.params is None
  assert 'ALARM: the evaluation at step 3 is lost' in caplog.text


def test_an_evaluation_that_cannot_be_written_for_another_reason_ends_the_run(
  trained, monkeypatch
):
  folder, judge = trained

  def fail(*_, **__):
    raise OSError(errno.EIO, 'broken')

  monkeypatch.setattr(json_file, 'write', fail)
  made = judge._candidate
  params = parameters.restore(folder / 'run')
  params = jax.device_put(params, NamedSharding(made._mesh, PartitionSpec()))
  with pytest.raises(OSError, match='broken'):
    judge(made.assets, made._mesh, 3, params)


def test_without_the_settings_nothing_is_judged(toy_data, tmp_path):
  config = settings(toy_data, tmp_path, evaluation__every=0)
  assert in_training.judge(config, tmp_path) is None


@pytest.mark.parametrize(
  'old,new,said',
  [
    ('steps_per_block: 1', 'block_size: 99', "task 'say': config.sampling.block_size is 99"),
    ('[wer]', '[wre]', "metric is 'wre'"),
    ('limit: 3', 'where: {task: sing}', 'no record of'),
    ('limit: 3', 'split: dev', "no split 'dev'"),
  ],
)
def test_what_cannot_be_judged_is_known_before_training(toy_data, tmp_path, old, new, said):
  config = settings(toy_data, tmp_path)
  path = tmp_path / 'suite.yaml'
  path.write_text(path.read_text().replace(old, new))
  with pytest.raises(ValueError, match=said):
    in_training.judge(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_suite_that_is_none_is_refused(toy_data, tmp_path):
  with pytest.raises(ValueError, match="config.evaluation.suite is '', but must be a file"):
    settings(toy_data, tmp_path, evaluation__suite='')
  with pytest.raises(suite.SuiteError, match='cannot be read'):
    config = settings(toy_data, tmp_path, evaluation__suite=str(tmp_path / 'none'))
    in_training.judge(config, tmp_path)
