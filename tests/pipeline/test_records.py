import json
import os
import pickle
import shutil
import sys

import numpy as np
import pytest
from array_record.python import array_record_module
from conftest import make_config

from data_pipelines import records, shards
from data_pipelines.records import DataError, Record, Source
from data_pipelines.stream import mixture
from ttt_jax import assets as assets_lib
from ttt_jax import chat, folders


def write(directory, assets, documents):
  def examples():
    for number, document in enumerate(documents):
      yield Record(f'r{number}', document, {'n': number})

  records.write(directory, {'train': examples}, assets)


def test_records_come_back_whole(source, documents):
  by_key = {source[i].key: source[i] for i in range(len(source))}
  assert len(by_key) == len(documents)
  for number, document in enumerate(documents):
    got = by_key[f'toy-{number}']
    for mine, wanted in zip(got.document, document):
      np.testing.assert_array_equal(mine, wanted)
    assert got.about == {'task': 'speak', 'text': 'one'}


def test_a_file_of_features_imports_nothing(toy_data, tmp_path, monkeypatch):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  (tmp_path / 'intruder.py').write_text('raise SystemExit')
  monkeypatch.syspath_prepend(tmp_path)
  path = shards.records_folder(data) / 'features.json'
  named = 'tensorflow_datasets.core.features.text_feature.Text'
  path.write_text(path.read_text().replace(named, 'intruder.Text', 1))
  with pytest.raises(DataError, match="features.json names 'intruder.Text'"):
    Source(data, 'train')
  assert 'intruder' not in sys.modules


@pytest.mark.parametrize(
  'key,value',
  [
    ('filepathTemplate', '{outside}/records-{{SPLIT}}.array_record-{{SHARD_X_OF_Y}}'),
    ('filepath_template', '../../../other/records/1.0.0/{{SPLIT}}-{{SHARD_X_OF_Y}}'),
    ('name', '../../../other/records/1.0.0/records-train'),
  ],
)
def test_records_that_lie_elsewhere_are_not_opened(toy_data, tmp_path, key, value):
  data, other = tmp_path / 'data', tmp_path / 'other'
  shutil.copytree(toy_data, data)
  shutil.copytree(toy_data, other)
  path = shards.records_folder(data) / 'dataset_info.json'
  about = json.loads(path.read_text())
  for split in about['splits']:
    if key != 'name':
      del split['filepathTemplate']
    split[key] = value.format(outside=shards.records_folder(other))
  path.write_text(json.dumps(about))
  with pytest.raises(DataError, match='dataset_info.json names .*is no file of split'):
    Source(data, 'train')


def test_metadata_that_are_a_pipe_are_not_waited_for(toy_data, tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  path = shards.records_folder(data) / 'dataset_info.json'
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(DataError, match='no plain file'):
    Source(data, 'train')


@pytest.mark.parametrize('name', ['shapes', 'copied'])
def test_lengths_that_somebody_else_kept_are_counted_again(toy_data, tmp_path, name):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  shutil.rmtree(data / 'cache', ignore_errors=True)  # which other tests may have filled
  source = Source(data, 'train')
  wanted = source.shapes, source.copied(None)
  (path,) = (data / 'cache').glob(f'{name}-*')
  kept = dict(np.load(path))
  for wrong in ({k: v[1:] for k, v in kept.items()}, {'lengths': np.arange(3)}):
    np.savez(path, **wrong)
    source = Source(data, 'train')
    for got, want in zip((source.shapes, source.copied(None)), wanted):
      np.testing.assert_array_equal(got, want)


def test_a_record_that_cannot_be_read_is_named(toy_data, tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  (path,) = shards.records_folder(data).glob('records-train*')
  content = np.fromfile(path, np.uint8)
  written = np.flatnonzero(content)
  content[written[len(written) // 2]] ^= 1  # it is in a hash of the file's own
  content.tofile(path)
  source = Source(data, 'train')
  whole = range(len(source))
  for way in (source, source.documents):
    with pytest.raises(DataError, match="record .* of split 'train' cannot be read"):
      [way[index] for index in whole]
    with pytest.raises(IndexError):
      way[len(source)]


def test_records_are_those_that_tfds_reads(source):
  copied = pickle.loads(pickle.dumps(source.documents))
  theirs = shards.opened(source.directory).as_data_source('train')
  assert len(copied) == len(source) == len(theirs)
  for index, raw in enumerate(theirs):
    wanted = chat.Document(raw['tokens'], raw['targets'], raw['spans'])
    assert source[index].key.encode() == raw['key']
    assert source[index].about == json.loads(raw['about'])
    for document in (source.documents[index], copied[index], source[index].document):
      for mine, want in zip(document, wanted):
        assert mine.dtype == want.dtype
        np.testing.assert_array_equal(mine, want)


@pytest.mark.parametrize('lack', ['tokens', 'targets', 'key', 'about'])
def test_a_record_that_lacks_a_feature_is_named(toy_data, documents, tmp_path, lack):
  data = tmp_path / 'data'
  shutil.copytree(toy_data, data)
  (path,) = shards.records_folder(data).glob('records-train*')
  written = shards.serialize(records.values(Record('r', documents[0], {})))
  writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
  writer.write(written.replace(lack.encode(), lack.title().encode()))
  writer.close()
  source = Source(data, 'train')
  with pytest.raises(DataError, match="record 0 of split 'train' cannot be read"):
    source[0]
  if lack in chat.Document._fields:
    with pytest.raises(DataError, match="record 0 of split 'train' cannot be read"):
      source.documents[0]


def test_shapes_tell_what_planning_needs(source):
  for index in range(len(source)):
    document, shapes = source[index].document, source.shapes
    assert shapes.lengths[index] == len(document.tokens)
    spans = document.spans[document.responses]
    if len(spans):
      start, end = spans[-1]
      assert (shapes.last_start[index], shapes.last_codes[index]) == (start, end - start - 1)
    else:
      assert shapes.last_codes[index] == 0


@pytest.mark.parametrize('token', [-3, 10**6, 'mask'])
def test_a_record_with_an_unknown_token_is_named(assets, documents, tmp_path, token):
  token = assets.vocabulary.mask if token == 'mask' else token
  tokens = documents[0].tokens.copy()
  tokens[3] = token
  broken = documents[0]._replace(tokens=tokens)
  with pytest.raises(DataError, match=f"record 'r1': token {token} at position 3"):
    write(tmp_path / 'data', assets, [documents[1], broken])
  assert not (tmp_path / 'data').exists()


def test_contradicting_records_are_refused(assets, documents, tmp_path):
  document = next(d for d in documents if len(d.spans))
  for broken, match in (
    (document._replace(spans=document.spans[:-1]), 'spans'),
    (document._replace(targets=document.targets[:-1]), 'target flag'),
    (document._replace(targets=document.targets & False), 'has no target'),
  ):
    with pytest.raises(DataError, match=match):
      write(tmp_path / 'data', assets, [broken])


def test_another_codec_is_refused_with_both_names(assets, documents, tmp_path):
  write(tmp_path / 'data', assets, documents[:2])
  path = tmp_path / 'data' / 'records' / shards.VERSION / 'metadata.json'
  metadata = json.loads(path.read_text())
  path.write_text(json.dumps(metadata | {'codec': 'deadbeef'}))
  with pytest.raises(assets_lib.AssetError, match=f'deadbeef.*{assets.codec.fingerprint}'):
    Source(tmp_path / 'data', 'train')


def test_missing_data_and_splits_are_named(toy_data, tmp_path):
  with pytest.raises(DataError, match='no data set'):
    Source(tmp_path, 'train')
  with pytest.raises(DataError, match="no split 'dev'.*test"):
    Source(toy_data, 'dev')


def test_a_place_that_cannot_be_written_is_named(assets, documents, tmp_path):
  blocked = tmp_path / 'file'
  blocked.write_text('in the way')
  with pytest.raises(folders.FolderError, match='cannot write to .*file/data'):
    write(blocked / 'data', assets, documents[:1])


def test_a_folder_of_something_else_is_not_deleted(assets, documents, tmp_path):
  (tmp_path / 'data').mkdir()
  (tmp_path / 'data' / 'precious.wav').write_bytes(b'sound')
  with pytest.raises(folders.FolderError, match='data holds something already'):
    write(tmp_path / 'data', assets, documents[:1])
  assert (tmp_path / 'data' / 'precious.wav').exists()


def test_equal_records_have_equal_fingerprints(assets, documents, tmp_path):
  write(tmp_path / 'a', assets, documents[:3])
  write(tmp_path / 'b', assets, documents[:3])
  write(tmp_path / 'c', assets, documents[:2])
  a, b, c = (Source(tmp_path / name, 'train').fingerprint for name in 'abc')
  assert a == b != c


def test_an_unwritable_cache_only_warns(assets, documents, tmp_path):
  write(tmp_path / 'data', assets, documents[:3])
  (tmp_path / 'data' / 'cache').write_text('in the way')
  assert len(Source(tmp_path / 'data', 'train').shapes.lengths) == 3


def test_what_is_computed_of_a_data_set_can_lie_elsewhere(assets, documents, tmp_path):
  write(tmp_path / 'data', assets, documents[:3])
  places = {'data__directory': str(tmp_path / 'data'), 'data__cache': str(tmp_path / 'away')}
  data = make_config(**places).data
  (wanted,) = (source.shapes for source in mixture.open_all(data))
  assert not (tmp_path / 'data' / 'cache').exists()
  (kept,) = (tmp_path / 'away').iterdir()
  np.savez(kept, **{name: part + 1 for name, part in wanted._asdict().items()})
  (source,) = mixture.open_all(data)
  np.testing.assert_array_equal(source.shapes.lengths, wanted.lengths + 1)


def test_documents_of_no_audio_are_fine(assets, tmp_path):
  text = assets.template.document([chat.Turn('assistant', ['one two'])])
  write(tmp_path / 'data', assets, [text])
  assert Source(tmp_path / 'data', 'train')[0].document.spans.shape == (0, 2)
