"""Readers of what data sets are made of, and of data sets."""

import gzip
import io
import itertools
import json
import pathlib
import shutil

import numpy as np
import pyarrow
import toys
from array_record.python import array_record_module
from pyarrow import parquet
from target import Target, of_file

from data_pipelines import items, records, shards
from data_pipelines.converting import clips, conversion, data_config
from data_pipelines.preparing import preparation
from data_pipelines.reading import sources
from ttt_jax import assets as assets_lib
from ttt_jax import errors
from ttt_jax.codecs import audio_io, audio_stream
from ttt_jax.inspection import quarantine as quarantine_lib
from ttt_jax.inspection import scan, tables, training

AUDIO = '<|begin_of_quad|><|audio_3|><|audio_1|><|end_of_audio_span_last|>'
THEIRS = [
  {
    'messages': [
      {'role': 'system', 'content': 'speak'},
      {'role': 'user', 'content': '<|begin_of_audio|><|audio_1|><|end_of_audio|>'},
      {'role': 'assistant', 'content': 'one' + AUDIO},
    ]
  },
  {'conversations': [{'from': 'human', 'value': 'one?'}, {'from': 'gpt', 'value': 'two'}]},
  {'prompt': 'one', 'response': 'two'},
  {'text': 'one<|begin_of_audio|><|audio_3|><|end_of_audio_new|> two'},
]
HEARD = {'audio': 'a.wav', 'start': 0.001, 'end': 0.015}
WORDS = [{'word': 'one', 'start': 0, 'end': 0.005}, {'word': 'two', 'start': 0.01, 'end': 0.01}]
MANIFEST = [
  {
    'turns': [
      {'role': 'user', 'parts': [HEARD]},
      {'role': 'assistant', 'parts': [{'text': 'one two'}, HEARD], 'interleave': [1, 1]},
    ],
    'task': 'chat',
    'about': {'speaker': 'anna'},
  },
  {'parts': [{'text': 'one two'}, HEARD | {'words': WORDS}], 'interleave': 'words'},
]
CONFIG = [
  {'path': 'a.jsonl', 'sample_ratio': 1.5, 'data_type': 'IT', 'task': 'transcribe'},
  {'path': 'sub', 'data_type': 'PT'},
  {'path': 's*/*.jsonl', 'sample_ratio': 0.5},
]


def _lines(values) -> bytes:
  return ''.join(json.dumps(value) + '\n' for value in values).encode()


def _list(values, **form) -> bytes:
  return json.dumps(values, **form).encode()


def _records(folder: pathlib.Path, name: str, *seeds: bytes) -> Target:
  """From a file to records that could be written; how it is cut into pieces is no matter."""
  toys.assets().save(folder / 'assets')
  (folder / 'a.wav').write_bytes(toys.wav())
  convert = conversion.Conversion(str(folder / 'assets'))
  path = folder / name

  def read(data: bytes) -> list[records.Record | items.Rejected]:
    path.write_bytes(data)
    found = []
    for size in (40, 2**30):
      pieces = sources.pieces([sources.Source(str(path))], size)
      found.append([item for piece in pieces for item in sources.read(piece)])
    assert list(map(_told, found[0])) == list(map(_told, found[1]))
    made = list(convert(found[0]))
    for each in made:
      if isinstance(each, items.Rejected):
        json.dumps(each).encode('utf-8', 'replace')
      else:
        shards.serialize(records.values(each))
    return made

  return Target(seeds, read)


def _told(item: items.Item | items.Rejected) -> str:
  """What must not depend on how a file is cut; why a list is broken may."""
  return repr(item if isinstance(item, items.Item) else item._replace(reason=''))


def json_lines(folder: pathlib.Path) -> Target:
  return _records(folder, 'r.jsonl', _lines(THEIRS), _lines(THEIRS[:1]), _lines(THEIRS[1:]))


def manifest(folder: pathlib.Path) -> Target:
  return _records(folder, 'r.jsonl', *(_lines([one]) for one in MANIFEST), _lines(MANIFEST))


def json_list(folder: pathlib.Path) -> Target:
  plain = _list(THEIRS)
  packed = gzip.compress(plain), b'\x28\xb5\x2f\xfd' + plain, plain.decode().encode('utf-16')
  forms = _list(THEIRS, indent=1), _list(THEIRS[:2]), b'\xef\xbb\xbf' + plain, _lines(THEIRS)
  return _records(folder, 'r.json', plain, *forms, *packed)


def table(folder: pathlib.Path) -> Target:
  seeds = []
  for rows in (THEIRS[:1], THEIRS[1:2], THEIRS[2:3], MANIFEST[:1], MANIFEST[1:]):
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream, compression='none')
    seeds.append(stream.getvalue())
  return _records(folder, 'r.parquet', *seeds)


def mixture(folder: pathlib.Path) -> Target:
  (folder / 'sub').mkdir()
  (folder / 'a.jsonl').write_bytes(_lines(THEIRS))
  (folder / 'sub' / 'b.jsonl').write_bytes(_lines(THEIRS[3:]))
  path = folder / 'config.json'
  path.write_bytes(_list(CONFIG))

  def read() -> None:
    listed = sources.pieces(data_config.read_data_config(path), 2**30)
    found = itertools.chain.from_iterable(map(sources.read, listed))
    assert sum(1 for _ in found) < 10**5

  return of_file(path, read, _list(CONFIG[1:]))


def data_set_content(folder: pathlib.Path) -> Target:
  return _data_set(folder, shards.CONTENT)


def data_set_info(folder: pathlib.Path) -> Target:
  return _data_set(folder, 'records/1.0.0/dataset_info.json')


def data_set_features(folder: pathlib.Path) -> Target:
  return _data_set(folder, 'records/1.0.0/features.json')


def data_set_metadata(folder: pathlib.Path) -> Target:
  return _data_set(folder, 'records/1.0.0/metadata.json')


def data_set_shard(folder: pathlib.Path) -> Target:
  return _data_set(folder, 'records/1.0.0/records-train.array_record-00000-of-00001')


def _data_set(folder: pathlib.Path, name: str) -> Target:
  """Opens a data set of which one file is replaced, and reads it in both ways."""
  data = toys.data_set(folder / 'data')

  def read() -> None:
    shutil.rmtree(data / 'cache', ignore_errors=True)
    source = records.Source(data, 'train')
    refused = 0
    for index in range(min(4, len(source))):
      for way in (source, source.documents):
        try:
          way[index]
        except records.DataError:
          refused += 1
    assert refused or source.fingerprint and source.shapes

  return of_file(data / name, read)


def data_set_record(folder: pathlib.Path) -> Target:
  """A record that was written whole, and by a stranger."""
  data = toys.data_set(folder / 'data', 1)
  (path,) = (data / 'records' / '1.0.0').glob('*array_record*')
  config = toys.config(data__row_length=64, data__batch_size=1)

  def read(written: bytes) -> None:
    shutil.rmtree(data / 'cache', ignore_errors=True)
    path.unlink()
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    writer.write(written)
    writer.close()
    source = records.Source(data, 'train')
    uses = (
      lambda: scan.scan(source, range(1), []),
      lambda: training.batch(source, config, 0),
      lambda: records.check_record(source[0], source.assets.vocabulary),
      lambda: source.copied(2),
    )
    refused = []
    for use in uses:
      try:
        use()
      except errors.UserError as error:
        refused.append(error)
    if refused:
      raise refused[0]

  seeds = [shards.serialize(records.values(toys.record(number))) for number in range(3)]
  return Target(seeds, read)


def kept_arrays(folder: pathlib.Path) -> Target:
  """Lengths of records, which somebody else may have kept beside them."""
  source = records.Source(toys.data_set(folder / 'data'), 'train')
  config = toys.config(data__row_length=64, data__batch_size=1)

  def read() -> None:
    source.__dict__.pop('shapes', None)
    found = source.shapes
    assert all(len(part) == len(source) for part in found) and min(found.lengths) > 0
    training.batch(source, config, 0)

  read()
  (path,) = (folder / 'data' / 'cache').glob('shapes-*.npz')
  stream = io.BytesIO()
  np.savez_compressed(stream, **source.shapes._asdict())
  other = io.BytesIO()
  np.savez(other, lengths=np.arange(5), last_start=np.ones((2, 2), np.float32))
  return of_file(path, read, stream.getvalue(), other.getvalue())


def sound(folder: pathlib.Path) -> Target:
  path = folder / 'a.wav'
  path.write_bytes(toys.wav())

  def read() -> None:
    wave, rate = audio_io.read_wav(path)
    audio_io.check_wave(wave)
    audio_io.resample(wave[:100], rate, 16_000)
    for _ in itertools.islice(audio_stream.read(path, 16_000), 10):
      pass

  return of_file(path, read, *toys.sounds())


def clip(folder: pathlib.Path) -> Target:
  path = folder / 'a.wav'
  path.write_bytes(toys.wav())

  def read() -> None:
    for start, end in ((0.0, None), (0.001, 0.01)):
      wave, rate = clips.read(clips.Clip(path, start, end), 600.0)
      audio_io.resample(wave[:100], rate, 16_000)

  return of_file(path, read, *toys.sounds())


def quarantine(folder: pathlib.Path) -> Target:
  line = {'file': 'a.json', 'line': 3, 'reason': 'is broken', 'excerpt': '{"a": '}
  path = folder / quarantine_lib.FILE
  path.write_bytes(_lines([line, line | {'line': 4}]))

  def read() -> None:
    found = {'quarantine': quarantine_lib.read(folder)}
    str(tables.quarantine(found)).encode()
    json.dumps(found)

  return of_file(path, read, _lines([{'file': 'b'}]))


def _begun(folder: pathlib.Path, name: str) -> Target:
  """A preparation that goes on where one was stopped."""
  source = folder / 'r.jsonl'
  source.write_bytes(_lines(THEIRS[1:3]))
  assets = toys.assets()
  assets.save(folder / assets_lib.DIRECTORY)
  convert = conversion.Conversion(str(folder / assets_lib.DIRECTORY))
  pieces = sources.pieces([sources.Source(str(source))], 2**20)
  job = preparation.Job(pieces, sources.read, convert, assets, {'pieces': 20})
  out, kept = folder / 'out', folder / 'kept'
  with preparation.opened(out, job) as state:
    state.work(state.tasks[0], lambda counts: None)
  partial = preparation.partial_folder(out)
  (shard,) = (partial / 'pieces').glob('*.array_record')
  moves = [[f'pieces/{shard.name}', 'whole/records/1.0.0/records-train.array_record-0']]
  (partial / 'moves.json').write_bytes(_list(moves))
  partial.rename(kept)
  (path,) = kept.glob(name)
  seeds = [path.read_bytes()]
  if path.name == 'moves.json':
    seeds.append(_list([['pieces/a', '../r.jsonl']]))  # which lies elsewhere
  else:
    (kept / 'moves.json').unlink()

  def read(data: bytes) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(kept, partial)
    (partial / path.relative_to(kept)).write_bytes(data)
    before = sorted(folder.iterdir())
    try:
      with preparation.opened(out, job) as state:
        assert min(state.counts) >= 0
    finally:
      assert sorted(folder.iterdir()) == before

  return Target(seeds, read)


def preparation_job(folder: pathlib.Path) -> Target:
  return _begun(folder, 'job.json')


def preparation_moves(folder: pathlib.Path) -> Target:
  return _begun(folder, 'moves.json')


def preparation_piece(folder: pathlib.Path) -> Target:
  return _begun(folder, 'pieces/*[0-9a-f].json')
