"""What ttt-inspect finds and writes: whole by itself, and careful with what records hold."""

import base64
import io
import json
import re
import shutil
import wave

import numpy as np
import pytest
from conftest import make_config
from parsed import Page

from data_pipelines import records
from ttt_jax import chat, errors
from ttt_jax.codecs import external
from ttt_jax.inspection import cards, figures, scan, survey, tables, training

ALL = survey.Choice(sample=None, shown=3, keys=(), step=0, rows=1)
HOSTILE = '<script>alert(1)</script>\x00\x1b[2J\u202e&"\''


@pytest.fixture(scope='module')
def hostile_data(assets, documents, tmp_path_factory):
  """A data set of texts and values that would like to do harm, and a text without end."""
  directory = tmp_path_factory.mktemp('hostile') / '<b>data'
  texts = [HOSTILE, 'x' * 1_000_000, '</bdi></article><img src=x onerror=alert(2)>']

  def examples():
    for number, text in enumerate(texts):
      turns = [chat.Turn('user', [text, np.zeros(4, np.int32)]), chat.Turn('assistant', [text])]
      about = {'task': f'{text[:50]}', 'text': '\ud800 half', '<i>': [text[:99], None]}
      key = f'<u>{number}</u>{"k" * 1000}'
      yield records.Record(key, assets.template.document(turns), about)
    for key in ('again', 'twice'):
      yield records.Record(key, documents[0], {'task': 'speak'})

  records.write(directory, {'train': examples}, assets)
  reject = {'file': '<s>a', 'line': 3, 'reason': HOSTILE, 'excerpt': '<style>\ud800'}
  (directory / 'quarantine.jsonl').write_text(json.dumps(reject) + '\n')
  return directory


def _page(found, tmp_path) -> tuple[str, Page]:
  path = tmp_path / 'page.html'
  survey.write_page(path, found)
  text = path.read_text(encoding='utf-8')
  return text, Page(text)


def test_page_is_whole_and_asks_for_nothing(toy_data, tmp_path):
  found = survey.survey(toy_data, 'train', make_config(), ALL)
  text, page = _page(found, tmp_path)
  assert not re.search(r'https?:|url\(|@import', text)
  assert not {'script', 'link', 'iframe'} & set(page.tags)
  for tag, name, value in page.addresses:
    assert value.startswith('#') or (name == 'src' and value.startswith('data:')), tag
  wanted = {value[1:] for _, _, value in page.addresses if value.startswith('#')}
  assert wanted <= set(page.ids) and len(page.ids) == len(set(page.ids))
  titles = 'Counts Lengths Codes Copies Rows of training Records'
  assert all(title in page.text for title in titles.split())
  assert 'Quarantine' not in page.text and 'Unsound' not in page.text


def test_hostile_records_stay_text(hostile_data, tmp_path):
  choice = ALL._replace(shown=5)
  found = survey.survey(hostile_data, 'train', make_config(), choice)
  text, page = _page(found, tmp_path)
  assert not {'script', 'img', 's', 'u', 'i'} & set(page.tags) - {'img', 'i'}
  assert not re.search(
    '<script|<style>[^:]*alert|<u>|<s>|<i>|<img src=x|\x00|\x1b|\u202e', text
  )
  assert '<script>alert(1)</script>\u2400\u241b[2J\ufffd' in page.text
  assert '\ufffd half' in page.text
  assert len(text) < 3_000_000  # though a text of 1,000,000 characters is shown twice
  console = tables.text(found.figures)
  assert not re.search('[\x00-\x08\x0b-\x1f\x7f\u202e]', console)
  assert found.figures['too_long'] >= 1 and found.figures['duplicates']['surplus'] == 1
  assert sorted(found.figures['duplicates']['largest'][0]['keys']) == ['again', 'twice']
  assert found.figures['quarantine']['rejected'] == 1


def test_sound_in_the_page_is_what_the_codec_makes_of_the_record(toy_data, assets, tmp_path):
  found = survey.survey(toy_data, 'train', make_config(), ALL._replace(keys=['toy-3', 'toy-1']))
  assert [record.key for record in found.shown] == ['toy-3', 'toy-1']
  _, page = _page(found, tmp_path)
  players = [value for tag, _, value in page.addresses if tag == 'audio']
  waves = []
  for record in found.shown:
    for start, end in record.document.spans:
      codes = assets.vocabulary.to_codes(record.document.tokens[start:end])
      waves.append(assets.codec.decode(codes))
  assert len(players) == len(waves) > 1
  for player, expected in zip(players, waves):
    with wave.open(io.BytesIO(base64.b64decode(player.split(',')[1]))) as file:
      assert file.getframerate() == assets.codec.sample_rate
      samples = np.frombuffer(file.readframes(file.getnframes()), '<i2')
    np.testing.assert_allclose(samples / 32767, np.clip(expected, -1, 1), atol=1e-4)


def test_card_shows_what_is_learnt(assets):
  turns = [chat.Turn('user', ['one']), chat.Turn('assistant', ['two'])]
  record = records.Record('k', assets.template.document(turns), {'task': 'speak', 'n': 7})
  card = cards.Cards(assets).card(record)
  assert '<bdi>one</bdi>' in card and '<bdi class="target">two</bdi>' in card
  ids = re.findall('<code(?: class="(target)")?>([0-9 ]+)</code>', card)
  shown = [(int(i), bool(target)) for target, run in ids for i in run.split()]
  document = record.document
  assert shown == list(zip(document.tokens.tolist(), document.targets.tolist()))


def test_without_the_codec_the_page_says_so(assets, documents):
  codec = external.External('elsewhere', assets.codec.codebook_size)
  document = next(d for d in documents if len(d.spans))
  card = cards.Cards(assets._replace(codec=codec)).card(records.Record('k', document, {}))
  assert 'It cannot be played' in card and 'elsewhere' in card and '<audio' not in card
  assert figures.frame_rate(codec) is None


def test_sound_has_a_budget(assets, documents, monkeypatch):
  monkeypatch.setattr(cards, '_BUDGET', 0.5)
  drawn = cards.Cards(assets)
  all_cards = ''.join(
    drawn.card(records.Record(f'{i}', d, {})) for i, d in enumerate(documents)
  )
  assert 1 <= all_cards.count('<audio') < 20
  assert 'seconds of sound already' in all_cards


def test_a_record_that_breaks_the_rules_is_named(assets, documents):
  broken = documents[0]._replace(tokens=np.array([-5, 10**6], np.int32))
  card = cards.Cards(assets).card(records.Record('<k>', broken, {}))
  assert 'cannot be taken apart' in card and '&lt;k&gt;' in card


def test_json_holds_the_figures_of_the_page(toy_data, documents, tmp_path):
  found = survey.survey(toy_data, 'test', make_config(), ALL)
  survey.write_json(tmp_path / 'figures.json', found.figures)
  read = json.loads((tmp_path / 'figures.json').read_text())
  assert read == found.figures
  assert read['total']['records'] == len(documents) and read['split'] == 'test'
  assert read['total']['tokens'] == sum(len(d.tokens) for d in documents)
  _, page = _page(found, tmp_path)
  for value in (
    read['total']['tokens'],
    read['total']['text'],
    read['lengths']['records']['p99'],
  ):
    assert f'{value:,}' in page.text
    assert f'{value:,}' in tables.text(read) or value == read['lengths']['records']['p99']


def test_a_sample_is_told_to_be_one(toy_data, documents, tmp_path):
  choice = ALL._replace(sample=20, keys=['toy-5', 'toy-50'])
  found = survey.survey(toy_data, 'train', make_config(), choice)
  assert found.figures['total']['records'] == found.figures['sampled'] == 20
  assert [record.key for record in found.shown] == ['toy-5', 'toy-50']
  _, page = _page(found, tmp_path)
  assert f'Figures are of 20 records at random, of {len(documents)}' in page.text
  again = survey.survey(toy_data, 'train', make_config(), choice)
  assert again.figures == found.figures
  assert survey.survey(toy_data, 'train', make_config(), ALL).figures['sampled'] is None


def test_rows_are_those_of_the_step(source, toy_data, documents):
  config = make_config(data__batch_size=4)
  first, rows = training.batch(source, config, 3)
  assert first == 12 and len(rows) == 4
  found = training.figures(rows, source.assets.vocabulary)
  weights = np.stack([row.weights for row in rows])
  targets = np.stack([row.targets for row in rows])
  real = np.stack([row.kv_end > row.kv_start for row in rows])
  audio = source.assets.vocabulary.is_audio(targets) & (weights > 0)
  assert found['fill'] == pytest.approx(real.mean())
  assert found['audio_targets'] * real.sum() == pytest.approx(audio.sum())
  assert found['text_targets'] * real.sum() == pytest.approx(((weights > 0) & ~audio).sum())
  normalizer = sum(float(row.normalizer) for row in rows)
  assert found['documents'] == normalizer


def test_rows_that_cannot_be_made_are_explained(toy_data, tmp_path):
  found = survey.survey(toy_data, 'train', make_config(data__row_length=5), ALL)
  assert found.figures['rows'] is None and found.figures['too_long'] > 0
  assert 'none of the 60 records' in _page(found, tmp_path)[1].text
  none = survey.survey(toy_data, 'train', make_config(), ALL._replace(rows=0))
  assert 'Rows of training' not in _page(none, tmp_path)[1].text


def test_what_is_missing_is_named(toy_data, tmp_path):
  with pytest.raises(errors.UserError, match='no data set of records here'):
    survey.survey(tmp_path, 'train', make_config(), ALL)
  with pytest.raises(errors.UserError, match=r"no split 'dev' \(there are: train, test\)"):
    survey.survey(toy_data, 'dev', make_config(), ALL)
  with pytest.raises(errors.UserError, match="no record of the key 'toy-x'"):
    survey.survey(toy_data, 'train', make_config(), ALL._replace(keys=['toy-1', 'toy-x']))
  found = survey.survey(toy_data, 'train', make_config(), ALL)
  for write, what in ((survey.write_page, found), (survey.write_json, found.figures)):
    with pytest.raises(errors.UserError, match='nowhere.* cannot be written'):
      write(tmp_path / 'nowhere' / 'file', what)


@pytest.mark.parametrize(
  'path,content,message',
  [
    ('assets/vocabulary.json', b'{"size": 1}', 'vocabulary.json: not a vocabulary'),
    ('assets/codec.npz', b'nothing', 'codec.npz'),
    ('assets/prompts.json', b'{', 'prompts.json: no prompts'),
    ('records/1.0.0/dataset_info.json', b'{', 'cannot be opened'),
    ('records/1.0.0/features.json', b'{', 'cannot be opened'),
    ('records/1.0.0/records-train.array_record-00000-of-00001', b'', 'cannot be'),
    ('records/1.0.0/records-train.array_record-00000-of-00001', b'x' * 70_000, 'cannot be'),
    ('records/1.0.0/records-train.array_record-00000-of-00001', None, 'cannot be'),
  ],
)
def test_damage_is_named(toy_data, tmp_path, path, content, message):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  if content is None:
    (data / path).unlink()
  else:
    (data / path).write_bytes(content)
  with pytest.raises(errors.UserError, match=message) as caught:
    survey.survey(data, 'train', make_config(), ALL)
  assert str(data) in str(caught.value)


def test_a_pass_in_small_batches_finds_the_same(source, monkeypatch):
  whole = scan.scan(source, range(len(source)), [])
  monkeypatch.setattr(scan, '_BATCH', 7)
  parts = scan.scan(source, range(len(source)), [])
  assert parts.statistics.tasks == whole.statistics.tasks
  assert parts.statistics.lengths == whole.statistics.lengths
  assert parts.statistics.hashes.numbers.tolist() == list(range(len(source)))
