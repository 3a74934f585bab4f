import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from ttt_jax.conversion import table, tensors

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(4, dtype=np.float32).astype(ml_dtypes.bfloat16)
C = np.ones((5,), np.float16)


@pytest.fixture
def sharded(tmp_path):
  made = {'a': A, 'b': B, 'c': C}
  makers = [(name, lambda value=value: value) for name, value in made.items()]
  sizes = {name: value.nbytes for name, value in made.items()}
  tensors.write(tmp_path, makers, sizes, shard_bytes=32)
  return tmp_path


def test_shards_are_small_and_come_back_bit_for_bit(sharded):
  files = sorted(path.name for path in sharded.glob('*.safetensors'))
  assert files == ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
  found = tensors.Folder(sharded)
  assert found.shapes == {'a': (2, 3), 'b': (4,), 'c': (5,)}
  assert found.dtypes == {'a': 'float32', 'b': 'bfloat16', 'c': 'float16'}
  for name, value in (('a', A), ('b', B), ('c', C)):
    np.testing.assert_array_equal(found[name], value)
    assert found[name].dtype == value.dtype
  index = json.loads((sharded / tensors.INDEX).read_text())
  assert index['metadata']['total_size'] == A.nbytes + B.nbytes + C.nbytes


def test_what_fits_one_file_needs_no_index(tmp_path):
  tensors.write(tmp_path, [('a', lambda: A)], {'a': A.nbytes}, 10**6)
  assert [path.name for path in tmp_path.iterdir()] == [tensors.SINGLE]
  np.testing.assert_array_equal(tensors.Folder(tmp_path)['a'], A)


def test_one_shard_is_in_memory_at_a_time(tmp_path):
  alive, peak = [], []

  class Counted(np.ndarray):
    def __del__(self):
      if self.base is None:
        alive.remove(id(self))

  def make():
    made = np.ndarray.__new__(Counted, (8,), np.float32)
    alive.append(id(made))
    peak.append(len(alive))
    return made

  names = [f't{i}' for i in range(8)]
  tensors.write(tmp_path, [(n, make) for n in names], dict.fromkeys(names, 32), 64)
  assert max(peak) == 2


@pytest.mark.parametrize('path', ['../model.safetensors', '/etc/passwd', '..', 'a/b', 'a\\b'])
def test_an_index_cannot_lead_out_of_its_folder(sharded, path):
  index = {'weight_map': {'a': path}}
  (sharded / tensors.INDEX).write_text(json.dumps(index))
  with pytest.raises(table.ConversionError, match='not beside it'):
    tensors.Folder(sharded)


@pytest.mark.parametrize('text', ['{', '[]', '{"weight_map": 3}', '{}'])
def test_a_damaged_index_is_named(sharded, text):
  (sharded / tensors.INDEX).write_text(text)
  with pytest.raises(table.ConversionError, match='index.json: not an index'):
    tensors.Folder(sharded)


def test_missing_and_damaged_files_are_named(sharded):
  first = sharded / 'model-00001-of-00002.safetensors'
  whole = first.read_bytes()
  first.write_bytes(whole[:-1])
  with pytest.raises(table.ConversionError, match='00001-of-00002.safetensors: not a whole'):
    tensors.Folder(sharded)
  first.unlink()
  with pytest.raises(table.ConversionError, match='missing model-00001-of-00002.safetensors'):
    tensors.Folder(sharded)


def test_an_index_and_its_files_must_agree(sharded):
  index = json.loads((sharded / tensors.INDEX).read_text())
  file = index['weight_map'].pop('b')
  (sharded / tensors.INDEX).write_text(json.dumps(index))
  with pytest.raises(table.ConversionError, match='has b, unnamed'):
    tensors.Folder(sharded)
  index['weight_map'] |= {'b': file, 'z': file}
  (sharded / tensors.INDEX).write_text(json.dumps(index))
  with pytest.raises(table.ConversionError, match='has no tensor z'):
    tensors.Folder(sharded)


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.pt', 'weights.pth'])
def test_pickles_are_refused_unread(tmp_path, name):
  (tmp_path / name).write_bytes(b'boom')
  with pytest.raises(table.ConversionError, match=f'{name} is a pickle.*save_pretrained'):
    tensors.Folder(tmp_path)


def test_an_empty_folder_and_quantized_weights_are_refused(tmp_path):
  with pytest.raises(table.ConversionError, match='neither model.safetensors nor'):
    tensors.Folder(tmp_path)
  safetensors_numpy.save_file({'a': np.zeros(3, np.int8)}, tmp_path / tensors.SINGLE)
  with pytest.raises(table.ConversionError, match='model.safetensors: a is I8'):
    tensors.Folder(tmp_path)


def test_a_header_that_lies_is_refused(tmp_path):
  header = json.dumps({'a': {'dtype': 'F32', 'shape': [4], 'data_offsets': [0, 10**9]}})
  content = struct.pack('<Q', len(header)) + header.encode() + bytes(16)
  (tmp_path / tensors.SINGLE).write_bytes(content)
  with pytest.raises(table.ConversionError, match='not a whole'):
    tensors.Folder(tmp_path)
