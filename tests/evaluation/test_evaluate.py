"""Evaluations of models that need no network: what is asked, kept, counted and reported."""

import json

import jiwer
import numpy as np
import pytest
from conftest import CODES
from parrots import Killed, Parrot, write_data

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax.codecs import audio_io, mel_vq
from ttt_jax.evaluation import bootstrap, evaluate, items, offline, suite, text_metrics
from ttt_jax.evaluation.recognisers import kinds

READ = {'where': {'task': 'transcribe'}, 'metrics': (suite.Metric('wer'),)}
SAY = {
  'where': {'task': 'speak'},
  'metrics': (suite.Metric('wer', of='speech'), suite.Metric('accuracy', match='end')),
  'recogniser': 'clock:9',
}


@pytest.fixture(scope='module')
def data(assets, tmp_path_factory):
  directory = tmp_path_factory.mktemp('judged') / 'data'
  write_data(directory, assets)
  return str(directory)


@pytest.fixture(autouse=True)
def recogniser_from_outside(clock_site):
  """All of these tests listen with the one of the documentation."""


def make_suite(data, **more) -> suite.Suite:
  tasks = (
    suite.Task('read', (data,), **READ),
    suite.Task('say', (data,), **SAY),
    suite.Task('all', (data,), (suite.Metric('likelihood', samples=2),), limit=9),
  )
  return suite.Suite(**({'tasks': tasks, 'resamples': 50, 'tolerance': 1.0} | more))


def judged(whole, folder, *parrots) -> evaluate.Judged:
  evaluation = evaluate.Evaluation(whole, folder / evaluate.ITEMS)
  return evaluation.judge([lambda one=one: one for one in parrots])


def results_of(*arguments) -> dict:
  results = judged(*arguments).results
  assert results.pop('seconds')['evaluate'] >= 0
  return json.loads(json.dumps(results))


def test_without_models_there_are_floors_which_later_models_take(data, assets, tmp_path):
  whole = make_suite(data)
  alone = judged(whole, tmp_path).results['tasks']['say']['figures']['speech_wer']
  assert alone['checkpoints'] == {} and alone['codec'] > 0
  clock = kinds.find('clock')
  calls = []
  with pytest.MonkeyPatch.context() as patch:
    hear = clock._hear
    patch.setattr(clock, '_hear', lambda *given: calls.append(1) or hear(*given))
    later = judged(whole, tmp_path, Parrot(assets)).results['tasks']['say']
  assert later['figures']['speech_wer']['codec'] == alone['codec']
  assert len(calls) == later['items']  # the parrot's answers alone


def test_figures_are_those_of_what_was_said_and_heard(data, assets, tmp_path):
  parrot = Parrot(assets)
  results = results_of(make_suite(data), tmp_path, parrot)
  source = records.Source(data, 'test')
  by_task = {'transcribe': [], 'speak': []}
  for index in range(len(source)):
    key, _, about = source[index]
    item = items.Item(key, None, about, None)
    by_task[about['task']].append((about, *parrot.says(item.seed(0))))
  read, say = results['tasks']['read'], results['tasks']['say']
  texts = [(about['text'], text) for about, text, _ in by_task['transcribe']]
  figure = read['figures']['wer']['checkpoints']['parrot']
  assert figure['value'] == pytest.approx(jiwer.wer(*map(list, zip(*texts))))
  assert figure['items'] == 12 and figure['low'] <= figure['value'] <= figure['high']
  pace = {
    kind: kinds.make(
      'clock:9', sorted({a['text'] for a, *_ in by_task['speak'] if a['kind'] == kind})
    )
    for kind in 'ab'
  }
  heard, floor = [], []
  for about, _, codes in by_task['speak']:
    listener = pace[about['kind']]
    heard.append((about['text'], listener.hear(assets.codec.decode(codes), 16_000)))
    if 'audio' in about:
      wave = np.zeros(2 * (6000 + 500 * about['number']), np.float32) + 0.1
      floor.append((about['text'], listener.hear(wave, 16_000)))
  spoken = say['figures']['speech_wer']
  value = spoken['checkpoints']['parrot']['value']
  assert value == pytest.approx(jiwer.wer(*map(list, zip(*heard))))
  assert spoken['original'] == pytest.approx(jiwer.wer(*map(list, zip(*floor))))
  assert len({value, spoken['original'], spoken['codec']}) == 3
  right = [
    text.split()[-len(a['text'].split()) :] == a['text'].split()
    for a, text, _ in by_task['speak']
  ]
  assert say['figures']['accuracy']['checkpoints']['parrot']['value'] == np.mean(right)
  assert 'codec' not in say['figures']['accuracy']
  assert results['tasks']['all']['items'] == len(parrot.read) == 9
  bound = results['tasks']['all']['figures']['audio_bound']['checkpoints']['parrot']['value']
  assert bound == pytest.approx(2.1 / 3)
  assert results['checkpoints'] == {
    'parrot': {'folder': 'runs/parrot', 'step': 10, 'parameters': 6}
  }
  assert say['cut_short']['parrot'] == sum(
    items.Item(key, None, {}, None).seed(0) % 5 == 0
    for key, _, about in (source[i] for i in range(len(source)))
    if about['task'] == 'speak'
  )


def test_a_run_that_is_killed_goes_on_with_the_same_results(
  data, assets, tmp_path, monkeypatch
):
  whole = make_suite(data)
  expected = results_of(whole, tmp_path / 'whole', Parrot(assets))
  for number, after in enumerate((0, 7, 13, 24)):  # 24 answers, then likelihoods
    folder = tmp_path / str(number)
    first = Parrot(assets, dies_after=after)
    with pytest.raises(Killed):
      judged(whole, folder, first)
    second = Parrot(assets)
    assert results_of(whole, folder, second) == expected
    assert len(first.asked) == after and len(first.asked) + len(second.asked) == 24
    assert not set(first.asked) & set(second.asked)


def test_listening_goes_on_where_it_was_killed(data, assets, tmp_path, monkeypatch):
  whole = make_suite(data)
  expected = results_of(whole, tmp_path / 'whole', Parrot(assets))
  clock = kinds.find('clock')
  heard, hear = [], clock._hear

  def dies(self, wave, rate):
    if len(heard) in (5, 17, 25):
      heard.append(None)
      raise Killed
    heard.append(hear(self, wave, rate))
    return heard[-1]

  monkeypatch.setattr(clock, '_hear', dies)
  for _ in range(3):
    with pytest.raises(Killed):
      judged(whole, tmp_path / 'mine', Parrot(assets))
  assert results_of(whole, tmp_path / 'mine', Parrot(assets)) == expected
  assert len(heard) - 3 == 12 + 12 + 4  # answers, codec, recordings: each once
  again = Parrot(assets)
  assert results_of(whole, tmp_path / 'mine', again) == expected and again.asked == []
  assert len(heard) == 31


def test_what_answers_depend_on_is_asked_again_and_nothing_else(data, assets, tmp_path):
  def asked(parrot, **more):
    judged(make_suite(data, **more), tmp_path, parrot)
    return len(parrot.asked), len(parrot.read)

  assert asked(Parrot(assets)) == (24, 9)
  assert asked(Parrot(assets, name='renamed')) == (0, 0)
  assert asked(Parrot(assets, voice=1)) == (24, 9)  # other parameters
  assert asked(Parrot(assets), seed=1) == (24, 9)
  assert asked(Parrot(assets), resamples=20, confidence=0.5, tolerance=0.5) == (0, 0)
  other = suite.Task('read', (data,), **READ | {'metrics': (suite.Metric('cer'),)})
  assert asked(Parrot(assets), tasks=(other,)) == (0, 0)
  for sampling, count in (({'text_temperature': 0.5}, 12), ({'batch': 3}, 0)):
    other = suite.Task('read', (data,), **READ, sampling=sampling)
    assert asked(Parrot(assets), tasks=(other,)) == (count, 0)


def broken_records(monkeypatch, *indices):
  read = records.Source.__getitem__

  def broken(self, index):
    if index in indices:
      raise RuntimeError('CRC\nmismatch')
    return read(self, index)

  monkeypatch.setattr(records.Source, '__getitem__', broken)


def test_broken_items_are_reported_and_counted_and_the_rest_is_judged(
  data, assets, tmp_path, monkeypatch
):
  read = records.Source.__getitem__

  def broken(self, index):
    record = read(self, index)
    if index == 4:
      raise RuntimeError('CRC\nmismatch')
    if record.key in ('transcribe-1', 'speak-2'):
      return record._replace(about={'task': record.about['task']})
    if record.key == 'transcribe-3':
      long = record.document._replace(
        tokens=np.tile(record.document.tokens, 9), targets=np.tile(record.document.targets, 9)
      )
      return record._replace(document=long)
    if record.key == 'speak-6':
      return record._replace(about=record.about | {'audio': 'audio/none.wav'})
    if record.key == 'speak-8':
      audio_io.write_wav(tmp_path / 'secret.wav', np.zeros(9, np.float32), 16000)
      return record._replace(about=record.about | {'audio': f'{tmp_path}/secret.wav'})
    if record.key == 'transcribe-5':
      return record._replace(about=record.about | {'text': ' '})
    if record.key == 'transcribe-7':
      silent = np.zeros(len(record.document.tokens), bool)
      return record._replace(document=record.document._replace(targets=silent))
    return record

  monkeypatch.setattr(records.Source, '__getitem__', broken)
  clock = kinds.find('clock')
  hear = clock._hear

  def deaf(self, wave, rate):
    if len(wave) == 2 * (6000 + 500 * 9):
      raise ZeroDivisionError('this one')
    return hear(self, wave, rate)

  monkeypatch.setattr(clock, '_hear', deaf)
  whole = make_suite(data)
  whole = suite.Suite(whole.tasks[:2], resamples=50, tolerance=0.5)
  found = judged(whole, tmp_path, Parrot(assets))
  tasks = found.results['tasks']
  failures = {
    (name, f['item'], f['checkpoint'], f['stage']): f['reason']
    for name, task in tasks.items()
    for f in task['failures']
  }
  assert failures == {
    ('read', '#4', 'parrot', 'read'): 'RuntimeError: CRC mismatch',
    ('say', '#4', 'parrot', 'read'): 'RuntimeError: CRC mismatch',
    ('read', 'transcribe-1', 'parrot', 'answer'): (
      "ValueError: the record has no text under 'text'"
    ),
    ('read', 'transcribe-3', 'parrot', 'answer'): 'ValueError: the prompt is too long',
    ('read', 'transcribe-5', 'parrot', 'judge'): (
      'MetricError: the reference has no words (behind the normaliser)'
    ),
    ('read', 'transcribe-7', 'parrot', 'answer'): 'ValueError: the record has no answer',
    ('say', 'speak-2', 'parrot', 'answer'): ("ValueError: the record has no text under 'text'"),
    ('say', 'speak-6', '', 'listen'): failures['say', 'speak-6', '', 'listen'],
    ('say', 'speak-8', '', 'listen'): failures['say', 'speak-8', '', 'listen'],
    ('say', 'speak-9', '', 'listen'): 'ZeroDivisionError: this one',
  }
  assert 'none.wav' in failures['say', 'speak-6', '', 'listen']
  assert 'lies outside' in failures['say', 'speak-8', '', 'listen']
  assert tasks['read']['items'] == 12 and tasks['read']['failed'] == {'parrot': 5}
  assert tasks['read']['figures']['wer']['checkpoints']['parrot']['items'] == 7
  assert tasks['say']['figures']['speech_wer']['checkpoints']['parrot']['items'] == 11
  assert evaluate.too_many_failed(found.results) == ''
  strict = judged(
    suite.Suite(whole.tasks, tolerance=0.4, resamples=0), tmp_path, Parrot(assets)
  )
  said = evaluate.too_many_failed(strict.results)
  assert "task 'read', checkpoint parrot: 5 of 12 items failed" in said and '40.0%' in said
  alone = suite.Suite(whole.tasks[1:], tolerance=0.1, resamples=0)
  said = evaluate.too_many_failed(judged(alone, tmp_path, Parrot(assets)).results)
  assert 'the first is #4 (read): RuntimeError' in said  # failed references do not count


def test_answers_that_are_kept_are_held_to_another_reference_as_new_ones(
  data, assets, tmp_path, monkeypatch
):
  read = records.Source.__getitem__

  def captioned(self, index):
    record = read(self, index)
    more = {'caption': 'one two'} if index % 4 else {}
    return record._replace(about=record.about | more)

  monkeypatch.setattr(records.Source, '__getitem__', captioned)
  spoken = {**SAY, 'metrics': SAY['metrics'][:1], 'reference': 'caption'}
  tasks = (
    suite.Task('read', (data,), **READ, reference='caption'),
    suite.Task('say', (data,), **spoken),
  )
  other = make_suite(data, tasks=tasks)
  fresh = results_of(other, tmp_path / 'fresh', Parrot(assets))
  judged(make_suite(data), tmp_path, Parrot(assets))
  again = Parrot(assets)
  found = judged(other, tmp_path, again)
  assert again.asked == []
  offline.write(found, tmp_path)
  assert json.loads(json.dumps(found.results))['tasks'] == fresh['tasks']
  failed = {name: task['failed']['parrot'] for name, task in fresh['tasks'].items()}
  assert sum(failed.values()) == 6 and all(
    'no text under' in one['reason']
    for task in fresh['tasks'].values()
    for one in task['failures']
  )


def test_a_task_of_which_nothing_is_left_has_no_figure(data, assets, tmp_path, monkeypatch):
  broken_records(monkeypatch, *range(24))
  found = judged(make_suite(data), tmp_path, Parrot(assets)).results
  assert found['tasks']['read']['items'] == 24
  entry = found['tasks']['read']['figures']['wer']['checkpoints']['parrot']
  assert entry == {'items': 0}


def test_a_broken_record_is_none_of_an_optional_task_that_has_no_other(
  data, assets, tmp_path, monkeypatch
):
  broken_records(monkeypatch, 4)
  sing = suite.Task('sing', (data,), **READ | {'where': {'task': 'sing'}}, optional=True)
  tasks = (suite.Task('read', (data,), **READ), sing)
  found = judged(make_suite(data, tasks=tasks, tolerance=0.1), tmp_path, Parrot(assets))
  assert list(found.results['tasks']) == ['read'] and not evaluate.too_many_failed(
    found.results
  )


def test_several_checkpoints_are_compared_on_the_same_items(data, assets, tmp_path):
  whole = make_suite(data)
  found = judged(whole, tmp_path, Parrot(assets, 0, 'a'), Parrot(assets, 1, 'b'))
  about = found.results['tasks']['read']['figures']['wer']
  assert (
    list(about['checkpoints']) == ['a', 'b'] and 'difference' not in about['checkpoints']['a']
  )
  measure = text_metrics.measure(suite.Metric('wer'))
  counts = []
  for name in 'ab':
    said = found.outcomes[name]['read'].said['text']
    counts.append(
      np.array(
        [measure.counts(said[i.name], [i.about['text']]) for i in found.tasks[0].items.chosen]
      )
    )
  expected = bootstrap.difference(*counts[::-1], text_metrics.ratio, 50, 0.95, 0)
  assert about['checkpoints']['b']['difference'] == expected._asdict() and expected.value
  values = [about['checkpoints'][name]['value'] for name in 'ab']
  assert expected.value == pytest.approx(values[1] - values[0])


def test_items_are_chosen_by_what_they_say_of_themselves_and_evenly(data):
  source = records.Source(data, 'test')

  def chosen(**more):
    task = suite.Task('t', (data,), (suite.Metric('wer'),), **more)
    return [item.name for item in items.collect(task, [source]).chosen]

  assert len(chosen()) == 24
  assert chosen(where={'task': 'speak', 'number': [3, 4]}) == ['speak-3', 'speak-4']
  assert chosen(where={'task': 'speak'}, limit=3) == ['speak-0', 'speak-4', 'speak-8']
  task = suite.Task('t', (data, data), (suite.Metric('wer'),), where={'number': 5})
  names = [item.name for item in items.collect(task, [source, source]).chosen]
  assert sorted(names) == ['0/speak-5', '0/transcribe-5', '1/speak-5', '1/transcribe-5']
  with pytest.raises(suite.SuiteError, match='no record of .*{task: sing}'):
    chosen(where={'task': 'sing'})
  assert chosen(where={'task': 'sing'}, optional=True) == []


@pytest.mark.parametrize(
  'task,said',
  [
    ({'recogniser': 'nobody'}, "task 'say' judges speech: unknown kind 'nobody'"),
    ({'sampling': {'block_size': 99}}, "task 'say', checkpoint parrot: config.sampling.block"),
    ({'data': ('/nowhere',)}, '/nowhere: no data set'),
    ({'split': 'dev'}, "no split 'dev'"),
  ],
)
def test_what_cannot_be_begun_is_refused(data, assets, tmp_path, task, said):
  task = suite.Task('say', **{'data': (data,), **SAY, **task})
  with pytest.raises(ValueError, match=said):
    judged(suite.Suite((task,)), tmp_path, Parrot(assets))


def test_a_model_of_other_assets_is_refused(data, assets, tmp_path):
  noise = np.random.default_rng(1).normal(size=(2, 16_000)).astype(np.float32)
  codec = mel_vq.MelVQ.fit(list(noise), 16_000, codebook_size=CODES)
  other = assets._replace(codec=codec)
  with pytest.raises(assets_lib.AssetError, match='beside parrot, was made with codec'):
    judged(make_suite(data), tmp_path, Parrot(other))


def test_names_tell_folders_apart():
  assert offline.names(['runs/a']) == ['a']
  assert offline.names(['x/a/run', 'x/b/run', 'x/c']) == ['a/run', 'b/run', 'x/c']
  for folders in ([], ['a', './a']):
    with pytest.raises(ValueError, match='each of them once'):
      offline.names(folders)
