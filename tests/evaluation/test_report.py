"""The report: whole by itself, right in its figures, and careful with text."""

import base64
import dataclasses
import io
import json
import re
import wave

import numpy as np
import pytest
from parrots import Parrot, write_data
from parsed import Page

from data_pipelines import records
from ttt_jax.evaluation import evaluate, examples, offline, report, suite, summary, transcripts

EVIL = '<script>alert(1)</script> & co'
FIGURES = {
  'say': {
    'speech_wer': {
      **{'metric': 'wer', 'of': 'speech', 'better': 'lower', 'unit': 'share'},
      'checkpoints': {
        'a': {'value': 0.1234, 'low': 0.1, 'high': 0.15, 'items': 151},
        'b': {
          **{'value': 0.2345, 'low': 0.2, 'high': 0.25, 'items': 150},
          'difference': {'value': 0.1111, 'low': 0.05, 'high': 0.2, 'p': 0.012},
        },
      },
      **{'codec': 0.0222, 'original': 0.0111},
    }
  },
  'all': {
    'audio_bound': {
      **{'metric': 'likelihood', 'better': 'lower', 'unit': 'nats'},
      'checkpoints': {'a': {'items': 0}, 'b': {'value': 3.2171, 'items': 9}},
    }
  },
  'caption': {
    'bleu': {
      **{'metric': 'bleu', 'of': 'text', 'better': 'higher', 'unit': 'points'},
      'checkpoints': {'a': {'value': 45.67, 'items': 9}, 'b': {'value': 0.0, 'items': 9}},
    }
  },
}
RESULTS = {
  'checkpoints': {'a': {}, 'b': {}},
  'suite': {'confidence': 0.9},
  'tasks': {
    name: {'figures': figures, 'cut_short': {'a': 3, 'b': 0}, 'failed': {'a': 0, 'b': 2}}
    for name, figures in FIGURES.items()
  },
  'seconds': {'train': 754.0, 'evaluate': 12.34},
  'note': 'too small & <young>',
}


@pytest.fixture(scope='module')
def data(assets, tmp_path_factory):
  directory = tmp_path_factory.mktemp('judged') / 'data'
  write_data(directory, assets, 6)
  return str(directory)


@pytest.fixture
def made(data, assets, tmp_path, clock_site):
  """Makes a page of two models, or of one."""

  def make(*parrots, tasks=(), **more) -> tuple[str, Page, evaluate.Judged]:
    whole = suite.Suite(
      tasks
      or (
        suite.Task('read', (data,), (suite.Metric('wer'),), where={'task': 'transcribe'}),
        suite.Task(
          'say',
          (data,),
          (suite.Metric('wer', of='speech'),),
          where={'task': 'speak'},
          recogniser='clock',
        ),
      ),
      resamples=10,
      tolerance=1.0,
    )
    evaluation = evaluate.Evaluation(whole, tmp_path / 'items')
    models = parrots or (Parrot(assets, 0, 'a'), Parrot(assets, 1, 'b'))
    judged = evaluation.judge([lambda one=one: one for one in models], **more)
    offline.write(judged, tmp_path)
    text = (tmp_path / evaluate.REPORT).read_text(encoding='utf-8')
    return text, Page(text), judged

  return make


def players(page: Page) -> list[bytes]:
  addresses = [value for tag, _, value in page.addresses if tag == 'audio']
  assert all(value.startswith('data:audio/wav;base64,') for value in addresses)
  return [base64.b64decode(value.split(',')[1]) for value in addresses]


def test_page_is_whole_and_asks_for_nothing(made):
  text, page, _ = made(versions=report.versions(), command='ttt-evaluate --note="<b>"')
  assert text.startswith('<!doctype html>')
  assert not re.search(r'https?:|url\(|@import', text)
  assert 'script' not in page.tags and 'link' not in page.tags
  for tag, name, value in page.addresses:
    assert value.startswith('#') or (name == 'src' and value.startswith('data:')), tag
  assert len(page.ids) == len(set(page.ids))
  wanted = {value[1:] for _, _, value in page.addresses if value.startswith('#')}
  assert wanted <= set(page.ids)
  assert "default-src 'none'" in re.search(r'content="(default[^"]*)"', text)[1].replace(
    '&#x27;', "'"
  )
  assert 'row_length' in page.text and 'ttt-evaluate --note="<b>"' in page.text
  assert 'runs/a, step 10, 6 parameters' in page.text


def test_figures_stand_in_the_table_and_in_the_page():
  html = Page(str(summary.html(RESULTS)))
  table = summary.table(RESULTS)
  for text in (table, html.text):
    for figure in ('12.3 %', '10.0 to 15.0', '23.4 %', '+11.1 %, +5.0 to +20.0', '0.012'):
      assert figure in text
    for figure in ('2.2 %', '1.1 %', '3.217', '45.7', '151', '90 % interval'):
      assert figure in text
    for fact in ('12 min 34 s', '12.3 s', '9 answers', '6 items'):
      assert fact in text
    assert 'say: word error rate, as heard' in text and 'caption: BLEU' in text
  assert 'Note: too small & <young>' in table


def test_table_is_aligned():
  heading, *lines = summary.table(RESULTS).splitlines()[:7]
  for column, figures in (
    ('value', ('12.3 %', '23.4 %', '–', '3.217', '45.7', '0.0')),
    ('codec alone', ('2.2 %', '2.2 %')),
    ('items', ('151', '150', '0', '9', '9', '9')),
  ):
    end = heading.index(column) + len(column)
    for line, figure in zip(lines, figures):
      assert line[:end].endswith(figure)
  assert [line.split()[0] for line in lines] == ['say:', 'b', 'all:', 'b', 'caption:', 'b']


def test_of_one_checkpoint_nothing_is_compared():
  alone = json.loads(json.dumps(RESULTS))
  del alone['checkpoints']['b']
  for task in alone['tasks'].values():
    for figure in task['figures'].values():
      del figure['checkpoints']['b']
  table, page = summary.table(alone), str(summary.html(alone))
  assert 'against' not in table.lower() and 'against the first' not in page.lower()
  assert 'checkpoint' not in table and '12.3 %' in table


def test_all_models_stand_side_by_side_and_the_sounds_are_in_the_page(made, data, assets):
  text, page, judged = made()
  (say,) = [task for task in judged.tasks if task.task.name == 'say']
  sounds = players(page)
  assert len(sounds) == 6 * 3 + 2  # codec and two models each; two have a recording
  assert [page.text.count(f'{name} 0.4 s') for name in 'ab'] == [6, 6]  # 9 codes
  item = say.items.chosen[0]
  _, codes = Parrot(assets, 1).says(item.seed(0))
  with wave.open(io.BytesIO(sounds[3])) as file:  # original, codec, a, b
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
    samples = np.frombuffer(file.readframes(file.getnframes()), '<i2')
  expected = np.rint(np.clip(assets.codec.decode(codes), -1, 1) * 32767)
  np.testing.assert_array_equal(samples, expected)
  for name in 'ab':
    assert judged.outcomes[name]['say'].said['speech'][item.name] in page.text
    assert judged.outcomes[name]['read'].said['text']['transcribe-0'].split()[0] in page.text


def test_text_is_escaped(made, assets, monkeypatch):
  class Evil(Parrot):
    def says(self, seed):
      return 'one', super().says(seed)[1]

  read = records.Source.__getitem__
  monkeypatch.setattr(
    records.Source,
    '__getitem__',
    lambda self, index: (r := read(self, index))._replace(about=r.about | {'text': EVIL}),
  )
  text, page, judged = made(Evil(assets, 0, '<i>a'), note=EVIL)
  assert '<script>' not in text and '<i>a' not in text.replace('&lt;i>a', '')
  assert EVIL in page.text


def test_failures_are_listed_with_their_reasons(made, monkeypatch):
  read = records.Source.__getitem__

  def broken(self, index):
    if index == 3:
      raise OSError('bad <sector>')
    return read(self, index)

  monkeypatch.setattr(records.Source, '__getitem__', broken)
  text, page, _ = made()
  assert 'Items that failed' in page.text and 'OSError: bad <sector>' in page.text
  monkeypatch.undo()


def test_sound_that_cannot_be_made_is_left_out_of_its_cards(made, monkeypatch):
  def refuse(*_):
    raise ValueError('an id of another level')

  monkeypatch.setattr(examples.voices, 'spoken', refuse)
  _, page, judged = made()
  assert len(players(page)) == 6 + 2  # reference speech
  assert judged.results['tasks']['say']['failed'] == {'a': 6, 'b': 6}
  assert 'ValueError: an id of another level' in page.text
  monkeypatch.setattr(examples.voices, 'floor', refuse)
  _, page, _ = made()
  assert players(page) == [] and page.text.count('Should say') == 6


def test_runaway_speech_keeps_the_page_small(made, assets, monkeypatch):
  long = np.random.default_rng(0).normal(0, 0.1, 30 * 16_000).astype('f4')
  monkeypatch.setattr(examples.voices, 'floor', lambda *_: long)
  monkeypatch.setattr(examples.voices, 'spoken', lambda *_: long)
  text, page, _ = made(*(Parrot(assets, i, f'm{i}') for i in range(3)))
  assert len(text) < 6_000_000 and len(players(page)) == 6 * 5
  assert 'of 30.0 s' in page.text


def test_results_are_written_when_all_else_is(made, monkeypatch, tmp_path):
  def refuse(*_):
    raise OSError('full')

  with monkeypatch.context() as patch:
    patch.setattr(report, 'write', refuse)
    with pytest.raises(OSError, match='full'):
      made()
  assert not (tmp_path / evaluate.RESULTS).exists()
  _, _, judged = made()
  written = json.loads((tmp_path / evaluate.RESULTS).read_text())
  assert written == json.loads(json.dumps(judged.results))


def test_curves_come_from_the_metrics_of_each_run(made, assets, tmp_path):
  lines = [
    {'step': 20, 'text_loss': 5.0, 'audio_loss': 2.0, 'audio_loss/0.3': 1.5},
    {'step': 40, 'text_loss': 9.0},
    {'step': 40, 'text_loss': 4.25, 'audio_loss/0.3': 2.5, 'audio_accuracy': float('nan')},
    {'step': 40, 'evaluation/say/speech_wer': 0.5},
  ]
  text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 60, "text'
  (tmp_path / 'metrics.jsonl').write_text(text)
  one, other = Parrot(assets, 0, 'a'), Parrot(assets, 1, 'b')
  one.folder = str(tmp_path)
  written, page, _ = made(one, other)
  assert 'Text loss, nats a token against step: from 5 to 4.25' in written
  assert 'part of the audio that is masked 0.35: 2' in page.text
  assert 'steps 20 to 40' in page.text
  assert page.text.count('no metrics.jsonl') == 2  # of b, in both sections


def test_without_a_split_for_training_the_rest_is_written(made, assets):
  parrot = Parrot(assets, 0, 'a')
  parrot.config = dataclasses.replace(
    parrot.config, data=dataclasses.replace(parrot.config.data, split='none')
  )
  _, page, _ = made(parrot)
  assert 'It cannot be drawn: ' in page.text and "no split 'none'" in page.text


@pytest.mark.parametrize(
  ('reference', 'heard', 'wrong'),
  [
    ('a b c', 'a b c', 0),
    ('a b c', 'a c', 1),
    ('a c', 'a b c', 1),
    ('a b c', 'a x c', 1),
    ('a b', '', 2),
    ('', 'a', 1),
    ('a b c d', 'b c d e', 2),
  ],
)
def test_alignment(reference, heard, wrong):
  pairs = transcripts.align(reference, heard)
  assert transcripts.mistakes(reference, heard) == wrong
  assert ' '.join(p.reference for p in pairs if p.reference) == reference
  assert ' '.join(p.heard for p in pairs if p.heard) == heard


def test_mistakes_are_marked():
  assert transcripts.marked('a b', 'a c') == 'a <del>b</del> <ins>c</ins>'
