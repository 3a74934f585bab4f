import io
import os
import zipfile

import numpy as np
import pytest

from ttt_jax import arrays, plain_file


def test_what_was_written_is_read(tmp_path):
  made = {'a': np.arange(6).reshape(2, 3), 'b': np.zeros((0, 2), np.float32)}
  np.savez(tmp_path / 'a.npz', **made)
  found = arrays.read(tmp_path / 'a.npz')
  assert found.keys() == made.keys()
  for name, array in made.items():
    np.testing.assert_array_equal(found[name], array)
    assert found[name].dtype == array.dtype


def one_array() -> bytes:
  stream = io.BytesIO()
  np.save(stream, np.arange(3))
  return stream.getvalue()


def zipped(name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w', method) as file:
    file.writestr(name, content)
  return stream.getvalue()


def pickled() -> bytes:
  stream = io.BytesIO()
  np.savez(stream, a=np.array([object], object))
  return stream.getvalue()


UNKNOWN = bytearray(zipped('a.npy', one_array()))
UNKNOWN[8] = UNKNOWN[UNKNOWN.index(b'PK\x01\x02') + 10] = 99  # a method of compression


@pytest.mark.parametrize(
  'content',
  [
    *(
      b'',
      b'nothing',
      b'PK\x05\x06' + bytes(18),
      one_array(),
      zipped('a.npy', b'no array'),
      zipped('a.txt', b'text'),
    ),
    *(zipped('a.npy', one_array())[:-30], pickled(), bytes(UNKNOWN)),
  ],
)
def test_damage_is_a_value_error(tmp_path, content):
  path = tmp_path / 'a.npz'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='file of arrays'):
    arrays.read(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    arrays.read(tmp_path / 'none.npz')


def test_a_file_that_unpacks_to_much_more_than_it_is_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(plain_file, 'BYTES', 10_000)
  np.savez(tmp_path / 'a.npz', a=np.zeros(5000))  # as much as it is
  assert arrays.read(tmp_path / 'a.npz')['a'].shape == (5000,)
  np.savez_compressed(tmp_path / 'b.npz', a=np.zeros(500))
  assert arrays.read(tmp_path / 'b.npz')['a'].shape == (500,)
  np.savez_compressed(tmp_path / 'b.npz', a=np.zeros(5000))
  with pytest.raises(ValueError, match='40128 bytes when unpacked; at most 10000 are'):
    arrays.read(tmp_path / 'b.npz')


def test_a_pipe_is_no_file_of_arrays(tmp_path):
  os.mkfifo(tmp_path / 'a.npz')
  with pytest.raises(ValueError, match='no plain file'):
    arrays.read(tmp_path / 'a.npz')
