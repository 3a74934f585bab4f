import json
import pathlib
import resource

import pytest

from ttt_jax.evaluation import log


def made(folder, about=None, writes=True) -> log.Log:
  return log.Log(folder, 'task-answers', about or {'step': 1}, writes)


def test_what_was_kept_is_known_again(tmp_path):
  first = made(tmp_path / 'new')
  first['a'], first['ключ\n"'] = [1, 2], {'text': 'één'}
  again = made(tmp_path / 'new')
  assert again['a'] == [1, 2] and again['ключ\n"'] == {'text': 'één'} and 'b' not in again
  assert 'a' not in made(tmp_path / 'new', {'step': 2})  # of another checkpoint
  assert len(list((tmp_path / 'new').iterdir())) == 2


@pytest.mark.parametrize('cut', range(1, 12))
def test_a_line_that_was_cut_off_is_made_again(tmp_path, cut):
  first = made(tmp_path)
  first['a'], first['b'] = 1, 'two'
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:-cut])
  again = made(tmp_path)
  assert 'a' in again and 'b' not in again
  again['b'], again['c'] = 'two', 3
  last = made(tmp_path)
  assert (last['a'], last['b'], last['c']) == (1, 'two', 3)
  lines = path.read_text().splitlines()
  assert [json.loads(line) for line in lines[-2:]] == [['b', 'two'], ['c', 3]]


def test_a_file_whose_first_line_was_cut_off_is_begun_anew(tmp_path):
  made(tmp_path)
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:4])
  made(tmp_path)['a'] = 1
  assert 'a' in made(tmp_path)
  assert json.loads(path.read_text().splitlines()[1]) == {'step': 1}


def test_who_opens_it_takes_nothing_from_another_who_writes(tmp_path, monkeypatch):
  first = made(tmp_path)
  first['a'] = 1
  (path,) = tmp_path.iterdir()
  other, read = made(tmp_path), pathlib.Path.read_bytes
  path.write_bytes(path.read_bytes()[:-2])  # a third one was killed

  def late(self):
    content = read(self)
    other['b'] = 2
    return content

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'read_bytes', late)
    made(tmp_path)['c'] = 3
  last = made(tmp_path)
  assert 'a' not in last and (last['b'], last['c']) == (2, 3)


def test_who_does_not_write_reads_and_remembers(tmp_path):
  made(tmp_path)['a'] = 1
  other = made(tmp_path, writes=False)
  other['b'] = 2
  assert 'a' in other and 'b' in other and 'b' not in made(tmp_path)
  made(tmp_path / 'none', writes=False)['a'] = 1
  assert not (tmp_path / 'none').exists()


def test_a_full_disk_spoils_no_line(tmp_path):
  first = made(tmp_path)
  first['a'] = 1
  (path,) = tmp_path.iterdir()
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 9, hard))
  try:
    with pytest.raises(OSError, match='No space left'):
      first['b'] = 'too long'
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  first['c'] = 3
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert lines == [{'step': 1}, ['a', 1], ['c', 3]]
