import errno
import json
import os

import pytest

from ttt_jax import json_file, plain_file

GOOD = {'a': [1, -2.5, None, True, 'ä\u2028\U0001f600'], 'b': {}}


@pytest.mark.parametrize('ascii_only', [True, False])
def test_what_was_written_is_read(tmp_path, ascii_only):
  path = tmp_path / 'a.json'
  path.write_text(json.dumps(GOOD, ensure_ascii=ascii_only), encoding='utf-8')
  assert json_file.read(path) == GOOD


@pytest.mark.parametrize('opens,closes', ['[]', ('{"a":', '}')])
def test_values_nest_so_deep_and_no_deeper(opens, closes):
  def nested(depth):
    return (opens * depth + '1' + closes * depth).encode()

  json_file.parse(nested(json_file.DEPTH))
  with pytest.raises(ValueError, match='nested too deeply'):
    json_file.parse(nested(json_file.DEPTH + 1))
  wide = b'[' + b','.join([nested(2)] * json_file.DEPTH) + b']'
  assert len(json_file.parse(wide)) == json_file.DEPTH


@pytest.mark.parametrize(
  'raw,message',
  [
    (b'', 'not JSON: Expecting value .character 1'),
    (b'{"a": 1,}', 'not JSON'),
    (b'"\xff"', 'not UTF-8: byte 2 is 0xff'),
    (b'{"a": "\\ud83d"}', 'half of a surrogate pair'),
    (b'{"\\udc00": 1}', 'half of a surrogate pair'),
    (b'[' * 100_000, 'nested too deeply'),
    (b'1' * 5000, 'digits'),
  ],
)
def test_all_else_is_a_value_error(raw, message):
  with pytest.raises(ValueError, match=message):
    json_file.parse(raw)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    json_file.read(tmp_path / 'none.json')


def test_what_has_no_end_is_not_begun(tmp_path):
  path = tmp_path / 'large.json'
  with path.open('wb') as file:
    file.truncate(plain_file.BYTES + 1)  # takes no room on the disk
  with pytest.raises(ValueError, match=f'has {plain_file.BYTES + 1} bytes; at most'):
    json_file.read(path)
  os.mkfifo(tmp_path / 'pipe')
  with pytest.raises(ValueError, match='no plain file'):
    json_file.read(tmp_path / 'pipe')


def test_what_cannot_be_written_is_what_it_was(tmp_path, monkeypatch):
  path = tmp_path / 'file.json'
  json_file.write(path, {'a': 'é'})
  assert json_file.read(path) == {'a': 'é'} and os.listdir(tmp_path) == ['file.json']

  def full(descriptor):
    raise OSError(errno.ENOSPC, 'full')

  with monkeypatch.context() as patch, pytest.raises(OSError, match='full'):
    patch.setattr(os, 'fsync', full)
    json_file.write(path, {'a': 2})
  assert json_file.read(path) == {'a': 'é'}
  json_file.write(path, 3)
  assert json_file.read(path) == 3 and os.listdir(tmp_path) == ['file.json']


def test_two_may_write_one_file_at_once(tmp_path, monkeypatch):
  path, sync, first = tmp_path / 'a.json', os.fsync, [True]

  def meanwhile(file):
    if first and first.pop():
      json_file.write(path, ['other'])
      assert json_file.read(path) == ['other']
    sync(file)

  monkeypatch.setattr(os, 'fsync', meanwhile)
  json_file.write(path, GOOD)
  assert json_file.read(path) == GOOD and os.listdir(tmp_path) == ['a.json']


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
  def fail(file):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  with pytest.raises(OSError, match='No space'):
    json_file.write(tmp_path / 'a.json', GOOD)
  assert not os.listdir(tmp_path)
