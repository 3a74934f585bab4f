"""Suites are read as they are meant, and what is wrong in one is named."""

import dataclasses
import pathlib

import pytest
import yaml

from ttt_jax.evaluation import suite, suite_file, text_metrics

WHOLE = """
data: sets/one
sampling: {text_temperature: 0.5, top_k: 3}
seed: 7
tolerance: 0.25
tasks:
- name: read
  where: {task: transcribe, voice: [0, 1]}
  limit: 9
  metrics: [wer, {metric: cer, normaliser: basic, name: letters}]
- name: say
  data: [/abs/two, sets/three]
  split: dev
  reference: words
  sampling: {top_k: 5}
  recogniser: transformers:some/model
  metrics:
  - {metric: wer, of: speech}
  - {metric: accuracy, match: option, options: ['yes', 'no']}
  - {metric: likelihood, samples: 2}
"""


def written(tmp_path, text) -> pathlib.Path:
  path = tmp_path / 'suite.yaml'
  path.write_text(text, encoding='utf-8')
  return path


def test_a_suite_is_what_its_file_says(tmp_path):
  made = suite_file.read(written(tmp_path, WHOLE))
  assert (made.seed, made.tolerance, made.resamples, made.confidence) == (7, 0.25, 1000, 0.95)
  read, say = made.tasks
  assert read == suite.Task(
    name='read',
    data=(str(tmp_path / 'sets/one'),),
    where={'task': 'transcribe', 'voice': [0, 1]},
    limit=9,
    sampling={'text_temperature': 0.5, 'top_k': 3},
    metrics=(suite.Metric('wer'), suite.Metric('cer', normaliser='basic', name='letters')),
  )
  assert say.data == ('/abs/two', str(tmp_path / 'sets/three')) and say.split == 'dev'
  assert say.sampling == {'text_temperature': 0.5, 'top_k': 5} and say.reference == 'words'
  assert [metric.title for metric in say.metrics] == ['speech_wer', 'accuracy', 'likelihood']
  assert say.metrics[1].options == ('yes', 'no') and say.likelihood.samples == 2
  assert say.spoken and not read.spoken and say.recogniser == 'transformers:some/model'


def test_what_is_given_from_outside_is_of_tasks_that_name_none(tmp_path):
  made = suite_file.read(
    written(tmp_path, WHOLE), data='a/b, c', split='val', recogniser='clock'
  )
  assert [task.data for task in made.tasks][0] == ('a/b', 'c')
  assert made.tasks[1].data[0] == '/abs/two'
  assert [task.split for task in made.tasks] == ['val', 'dev']
  assert [task.recogniser for task in made.tasks] == ['clock', 'transformers:some/model']


def test_the_standard_suite_can_be_read_and_taken():
  made = suite_file.standard('somewhere')
  assert {task.data for task in made.tasks} == {('somewhere',)}
  for task in made.tasks:
    assert [text_metrics.measure(metric) for metric in task.answered] or task.likelihood


TASK = 'tasks: [{name: a, data: d, metrics: [%s]}]'


@pytest.mark.parametrize(
  'text,said',
  [
    ('', 'the file is None, but must be a section'),
    ('- tasks', "the file is ['tasks']"),
    ('tasks: [', 'no YAML'),
    ('\x00', 'no YAML'),
    ('a: &x [*x]', 'line 1: write the value out'),
    ('!!python/object/apply:os.system ["true"]', 'no YAML'),
    ('tasks: []', 'tasks is [], but must be a list of one or more'),
    ('taks: []', "no such key: taks (did you mean 'tasks'?)"),
    ('1: 2', 'no such key: 1'),
    ('{tasks: [], tasks: []}', "key 'tasks' is there twice, line 1"),
    ('tasks: {a: b}', 'tasks is'),
    ('tasks: [a]', "tasks[0] is 'a', but must be a section"),
    ('tasks: [{data: d, metrics: [wer]}]', 'missing: tasks[0].name'),
    ('tasks: [{name: a, metrics: [wer]}]', 'missing: tasks[0].data'),
    ('tasks: [{name: a, data: d}]', 'tasks[0].metrics is None'),
    ('tasks: [{name: no, data: d, metrics: [wer]}]', 'tasks[0].name is False'),
    ('tasks: [{name: a/b, data: d, metrics: [wer]}]', "tasks[0].name is 'a/b'"),
    ('tasks: [{name: .., data: d, metrics: [wer]}]', "tasks[0].name is '..'"),
    ('tasks: [{name: a, data: 3, metrics: [wer]}]', 'tasks[0].data is 3'),
    ('tasks: [{name: a, data: [" "], metrics: [wer]}]', 'tasks[0].data'),
    ('tasks: [{name: a, data: d, metrics: [wer], limit: -1}]', 'tasks[0].limit is -1'),
    ('tasks: [{name: a, data: d, metrics: [wer], limit: true}]', 'tasks[0].limit is True'),
    ('tasks: [{name: a, data: d, metrics: [wer], limit: 1.5}]', 'tasks[0].limit is 1.5'),
    ('tasks: [{name: a, data: d, metrics: [wer], where: [x]}]', "tasks[0].where is ['x']"),
    ('tasks: [{name: a, data: d, metrics: [wer], split: ""}]', "tasks[0].split is ''"),
    (
      'tasks: [{name: a, data: d, metrics: [wer], sampling: {text_temprature: 1}}]',
      "no such key: tasks[0].sampling.text_temprature (did you mean 'text_temperature'?)",
    ),
    ('sampling: {top: 1}\ntasks: [{name: a, data: d, metrics: [wer]}]', 'key: sampling.top'),
    (TASK % 'wre', "metrics[0].metric is 'wre', but must be one of wer,"),
    (TASK % '3', 'metrics[0] is 3'),
    (TASK % '{of: text}', 'missing: tasks[0].metrics[0].metric'),
    (TASK % '{metric: wer, of: sound}', "metrics[0].of is 'sound'"),
    (TASK % '{metric: wer, normaliser: all}', "normaliser is 'all', but must be one of none"),
    (TASK % '{metric: wer, normalizer: basic}', "(did you mean 'normaliser'?)"),
    (TASK % '{metric: wer, match: end}', "match is 'end', but must be not of wer"),
    (TASK % '{metric: likelihood, of: text}', "of is 'text', but must be not of likelihood"),
    (TASK % '{metric: likelihood, samples: 0}', 'samples is 0'),
    (TASK % '{metric: likelihood, name: b}', "name is 'b', but must be not of likelihood"),
    (TASK % 'likelihood, likelihood', "metrics[1] is 'likelihood', but must be there once"),
    (TASK % '{metric: accuracy, match: option}', 'metrics[0].options is ()'),
    (TASK % '{metric: accuracy, match: option, options: [a]}', 'two or more'),
    (TASK % '{metric: accuracy, match: option, options: [1, 2]}', 'must be texts'),
    (TASK % '{metric: accuracy, options: [a, b]}', "only where match is 'option'"),
    (TASK % 'wer, wer', "metrics[1].name is 'wer', but must be unique"),
    ('tasks: [{name: a, data: d, metrics: [wer]}, {name: A, data: d, metrics: [wer]}]', 'uniq'),
    (TASK % '&a wer, *a', 'line 1: write the value out'),
    (TASK % 'wer' + '\nseed: 2020-13-45', "seed is '2020-13-45'"),
    (TASK % 'wer' + '\nseed: !!binary a', 'no YAML'),
    (TASK % 'wer' + '\nseed: ' + '1' * 5000, 'no YAML'),
    (TASK % 'wer' + '\nseed: -1', 'seed is -1'),
    (TASK % 'wer' + '\nresamples: -1', 'resamples is -1'),
    (TASK % 'wer' + '\nconfidence: 1', 'confidence is 1'),
    (TASK % 'wer' + '\ntolerance: 2', 'tolerance is 2'),
  ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path, text, said):
  path = written(tmp_path, text)
  with pytest.raises(suite.SuiteError) as error:
    suite_file.read(path)
  assert said in str(error.value) and str(path) in str(error.value)


def test_files_that_are_none(tmp_path):
  (tmp_path / 'latin.yaml').write_bytes(b'tasks: \xe9')
  for name, said in (('none.yaml', 'cannot be read'), ('latin.yaml', 'no YAML'), ('', 'cann')):
    with pytest.raises(suite.SuiteError, match=said):
      suite_file.read(tmp_path / name)
  deep = written(tmp_path, 'a: ' + '[' * 20_000)
  with pytest.raises(suite.SuiteError, match='no YAML'):
    suite_file.read(deep)


def test_a_suite_goes_into_results(tmp_path):
  made = suite_file.read(written(tmp_path, WHOLE))
  values = made.to_dict()
  assert yaml.safe_load(yaml.safe_dump(values['tasks'][0]['where'])) == made.tasks[0].where
  assert {field.name for field in dataclasses.fields(suite.Suite)} == set(values)
