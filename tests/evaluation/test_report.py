"""The report: whole by itself, right in its figures, and careful with text."""

import base64
import io
import json
import re
import types
import wave

import numpy as np
import pytest
from parsed import Page
from toy_rows import VOCABULARY, packed

from configs import base
from data_pipelines import records
from data_pipelines.stream import rows
from ttt_jax import config as config_lib
from ttt_jax.evaluation import judge, report, transcripts

RATE = 16_000

RESULTS = {
  'tts_wer': 0.1234,
  'tts_wer_floor_original': 0.0111,
  'tts_wer_floor_codec': 0.0222,
  'tts_records': 2,
  'asr_wer': 0.4567,
  'asr_records': 1,
  'qa_text_accuracy': 0.891,
  'qa_audio_accuracy': 0.765,
  'qa_audio_ceiling_original': 0.997,
  'qa_audio_ceiling_codec': 0.954,
  'qa_records': 1,
  'cut_short': 7,
  'text_nats': 0.3217,
  'text_targets': 4321,
  'audio_bound': 3.217,
  'audio_tokens': 8765,
  'seconds': {'train': 754.0, 'evaluate': 12.34},
  'versions': {'jax': '0.0.1'},
  'command': 'ttt-evaluate --note="<b>"',
  'note': 'too small & <young>',
}

FIGURES = ('12.3 %', '1.1 %', '2.2 %', '45.7 %', '89.1 %', '76.5 %', '99.7 %', '95.4 %')
FACTS = ('0.322 nats', '3.217 nats', '4321', '8765', '12 min 34 s', '12.3 s', '7 answers')


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
  return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype('f4')


def heard_item(key='k', task='speak', reference='one two', **more) -> judge.Heard:
  empty = np.zeros(0, np.float32)
  values = {
    'key': key,
    'task': task,
    'reference': reference,
    'text': '',
    'wave': empty,
    'heard': '',
    'original': empty,
    'heard_original': '',
    'codec': empty,
    'heard_codec': '',
    'complete': True,
  }
  return judge.Heard(**(values | more))


@pytest.fixture
def session() -> types.SimpleNamespace:
  codec = types.SimpleNamespace(sample_rate=RATE, frame_rate=25.0, codebook_size=8)
  assets = types.SimpleNamespace(codec=codec, vocabulary=VOCABULARY)
  config = config_lib.from_config_dict(base.get_config())
  params = {'kernel': np.zeros((12, 100))}
  return types.SimpleNamespace(config=config, assets=assets, params=params)


@pytest.fixture
def data(monkeypatch):
  """A data set of one question and one row."""
  about = {'text': 'seven', 'question': 'three plus four'}
  source = [records.Record('a-1', None, about), records.Record('other', None, {})]
  monkeypatch.setattr(records, 'Source', lambda *_: source)
  monkeypatch.setattr(rows, 'Rows', lambda *_: [packed()])
  return 'data'


def write(tmp_path, session, results=RESULTS, heard=()) -> tuple[str, Page]:
  path = tmp_path / 'report.html'
  report.write(path, results, heard, session, tmp_path, 'data')
  text = path.read_text(encoding='utf-8')
  return text, Page(text)


def some_heard() -> list[judge.Heard]:
  wave_a, wave_b = tone(0.2), tone(0.3, 880.0)
  return [
    heard_item('s-1', wave=wave_a, heard='one', original=wave_b, heard_original='one two'),
    heard_item('s-2', reference='<script>alert(1)</script> & co', complete=False),
    heard_item('a-1', 'answer', 'seven', text='<eight>', wave=wave_b, heard='seven'),
    heard_item('t-1', 'transcribe', 'one two three', text='one too three four'),
  ]


def test_page_is_whole_and_asks_for_nothing(tmp_path, session, data):
  text, page = write(tmp_path, session, heard=some_heard())
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


def test_figures_and_facts_appear_in_both_forms(tmp_path, session, data):
  _, page = write(tmp_path, session)
  table = report.table(RESULTS)
  for figure in (*FIGURES, *FACTS):
    assert figure in page.text
    assert figure in table
  assert '1,200' in page.text  # parameters
  assert 'row_length' in page.text and 'ttt-evaluate --note="<b>"' in page.text


def test_table_is_aligned():
  heading, *lines = report.table(RESULTS).splitlines()[:5]
  for column, figures in (
    ('model', ('12.3 %', '45.7 %', '89.1 %', '76.5 %')),
    ('codec alone', ('2.2 %', None, None, '95.4 %')),
    ('original', ('1.1 %', None, None, '99.7 %')),
  ):
    ends = heading.index(column) + len(column)
    for line, figure in zip(lines, figures):
      if figure:
        assert line.index(figure) + len(figure) == ends
  assert len({len(line) for line in (heading, *lines)}) == 1


def test_text_is_escaped(tmp_path, session, data):
  text, page = write(tmp_path, session, heard=some_heard())
  assert '<script>' not in text and '<eight>' not in text and '<young>' not in text
  assert 'too small & <young>' in page.text
  assert '<script>alert(1)</script> & co' in page.text


def test_question_is_looked_up(tmp_path, session, data):
  _, page = write(tmp_path, session, heard=some_heard())
  assert 'three plus four' in page.text


@pytest.mark.parametrize('missing', [*RESULTS, 'everything'])
def test_missing_keys_are_left_out(tmp_path, session, data, missing):
  kept = {k: v for k, v in RESULTS.items() if missing not in (k, 'everything')}
  write(tmp_path, session, results=kept)
  assert isinstance(report.table(kept), str)
  if missing == 'asr_wer':
    assert 'Transcribing' not in report.table(kept)


def test_without_data_set_the_rest_is_written(tmp_path, session, monkeypatch):
  def refuse(*_):
    raise records.DataError('no records <here>')

  monkeypatch.setattr(records, 'Source', refuse)
  _, page = write(tmp_path, session, heard=some_heard())
  assert 'no records <here>' in page.text and '12.3 %' in page.text


def test_sound_is_in_the_page(tmp_path, session, data):
  _, page = write(tmp_path, session, heard=some_heard())
  players = [value for tag, _, value in page.addresses if tag == 'audio']
  assert len(players) == 3  # two of s-1 and one of a-1: the others are empty
  kind, content = players[0].split(',')  # the original of s-1
  assert kind == 'data:audio/wav;base64'
  with wave.open(io.BytesIO(base64.b64decode(content))) as file:
    assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, RATE)
    samples = np.frombuffer(file.readframes(file.getnframes()), '<i2')
  np.testing.assert_array_equal(samples, np.rint(tone(0.3, 880.0) * 32767))


def test_runaway_speech_keeps_the_page_small(tmp_path, session, data):
  long = np.random.default_rng(0).normal(0, 0.1, 30 * RATE).astype('f4')
  items = [heard_item(f's-{i}', wave=long, original=long, codec=long) for i in range(6)]
  items += [heard_item(f'a-{i}', 'answer', wave=long, original=long) for i in range(4)]
  text, page = write(tmp_path, session, heard=items)
  assert len(text) < 6_000_000
  assert 'of 30.0 s' in page.text


def test_curves_come_from_the_metrics(tmp_path, session, data):
  lines = [
    {'step': 20, 'text_loss': 5.0, 'audio_loss': 2.0, 'audio_loss/0.3': 1.5},
    {'step': 40, 'text_loss': 9.0},
    {'step': 40, 'text_loss': 4.25, 'audio_loss/0.3': 2.5, 'audio_accuracy': float('nan')},
  ]
  text = '\n'.join(map(json.dumps, lines)) + '\n{"step": 60, "text'
  (tmp_path / 'metrics.jsonl').write_text(text)
  written, page = write(tmp_path, session)
  assert 'Text loss, nats a token against step: from 5 to 4.25' in written
  assert 'part of the audio that is masked 0.35: 2' in page.text
  assert 'steps 20 to 40' in page.text


def test_without_metrics_the_page_says_so(tmp_path, session, data):
  _, page = write(tmp_path, session)
  assert 'no metrics.jsonl' in page.text


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
