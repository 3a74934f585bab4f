"""Steps of a run that cannot be read: broken disks, and networks that do not answer."""

import errno
import hashlib
import itertools
import os
import shutil
import types

import pytest
from toy_run import flip, save

from ttt_jax import checkpoint, hashes, json_file, parameters, resuming
from ttt_jax.cli import checkpoint as tool


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('saved')
  save(workdir, [1, 2])
  return workdir


@pytest.fixture
def run(saved, tmp_path):
  """A run with the steps 1 and 2."""
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def _content(fail, patch):
  digest = hashlib.file_digest

  def read(file, kind):
    fail(file.name, '2/metadata/metadata')
    return digest(file, kind)

  patch.setattr(hashlib, 'file_digest', read)


def _attribute(owner, name, path):
  def break_it(fail, patch):
    original = getattr(owner, name)

    def do(where, *args, **kwargs):
      fail(where, path)
      return original(where, *args, **kwargs)

    patch.setattr(owner, name, do)

  return break_it


UNREAD = {
  'content': _content,
  'size': _attribute(os, 'lstat', '2/metadata/metadata'),
  'folder': _attribute(os, 'scandir', '2/metadata'),
  'hashes': _attribute(json_file, 'read', f'2/{hashes.FILE}'),
}


def break_storage(monkeypatch, what, code, times=10**9):
  """Lets `times` looks at step 2 fail."""
  left = itertools.chain([True] * min(times, 999), itertools.repeat(times > 999))

  def fail(path, where):
    if str(path).endswith(where) and next(left):
      raise OSError(code, os.strerror(code))

  UNREAD[what](fail, monkeypatch)


@pytest.mark.parametrize('code,damaged', [(errno.EIO, True), (errno.ESTALE, False)])
@pytest.mark.parametrize('what', UNREAD)
def test_a_broken_disk_is_damage_and_a_network_that_does_not_answer_is_not(
  run, monkeypatch, what, code, damaged
):
  monkeypatch.setattr(hashes, 'PATIENCE', 0)
  break_storage(monkeypatch, what, code)
  if damaged:
    assert resuming.newest_whole(run) == 1
  else:
    with pytest.raises(checkpoint.CheckpointError, match=f'cannot be.*{os.strerror(code)}'):
      resuming.newest_whole(run)
    with pytest.raises(checkpoint.CheckpointError, match=f'cannot be.*{os.strerror(code)}'):
      checkpoint.prune(run, 1)
    assert tool.verify(run) == 1 and checkpoint.steps(run) == [1, 2]
  if what != 'hashes':
    with pytest.raises(OSError, match=os.strerror(code)):
      hashes.write(run / ('damaged' if damaged else 'checkpoints') / '2')


@pytest.mark.parametrize('code', [errno.EIO, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize('what', UNREAD)
def test_storage_that_comes_to_itself_has_lost_nothing(run, monkeypatch, what, code):
  monkeypatch.setattr(hashes.time, 'sleep', lambda seconds: None)
  break_storage(monkeypatch, what, code, times=3)
  assert resuming.newest_whole(run) == 2 and not (run / checkpoint.DAMAGED).exists()


@pytest.mark.parametrize('steps', [1, 2, 3])
def test_where_no_step_can_be_read_none_is_moved(run, monkeypatch, steps):
  def fail(file, kind):
    raise OSError(errno.EIO, os.strerror(errno.EIO))

  shutil.copytree(checkpoint.folder(run, 2), checkpoint.folder(run, 3))
  for step in range(steps + 1, 4):
    shutil.rmtree(checkpoint.folder(run, step))
  monkeypatch.setattr(hashes, 'PATIENCE', 0)
  with monkeypatch.context() as patch:
    patch.setattr(hashlib, 'file_digest', fail)
    for _ in range(3):
      with pytest.raises(checkpoint.CheckpointError, match='cannot be read, and none before'):
        resuming.newest_whole(run)
    with pytest.raises(checkpoint.CheckpointError, match='cannot be read: .*Input/output'):
      parameters.restore(run)
  assert checkpoint.steps(run) == list(range(1, steps + 1))
  assert resuming.newest_whole(run) == steps and not (run / checkpoint.DAMAGED).exists()


def break_disk(monkeypatch, *steps):
  """Lets no content of these steps be read."""
  digest = hashlib.file_digest

  def read(file, kind):
    if any(f'/{step}/' in file.name for step in steps):
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return digest(file, kind)

  monkeypatch.setattr(hashes, 'PATIENCE', 0)
  monkeypatch.setattr(hashlib, 'file_digest', read)


def test_a_step_that_cannot_be_read_is_damaged_where_one_before_it_can_be(run, monkeypatch):
  """Whether that one is whole or not: storage answers."""
  flip(checkpoint.folder(run, 2) / 'metadata' / 'metadata')
  shutil.copytree(checkpoint.folder(run, 2), checkpoint.folder(run, 3))
  break_disk(monkeypatch, 3)
  assert resuming.newest_whole(run) == 1
  assert sorted(os.listdir(run / checkpoint.DAMAGED)) == ['2', '3']


def test_steps_before_those_that_cannot_be_read_are_looked_at(run, monkeypatch):
  shutil.copytree(checkpoint.folder(run, 2), checkpoint.folder(run, 3))
  break_disk(monkeypatch, 2, 3)
  assert resuming.newest_whole(run) == 1
  assert sorted(os.listdir(run / checkpoint.DAMAGED)) == ['2', '3']


def test_a_look_that_takes_long_is_followed_by_another_one(run, monkeypatch):
  now = [0.0]
  fake = types.SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None)
  monkeypatch.setattr(hashes, 'time', fake)

  looks = []
  digest = hashlib.file_digest

  def read(file, kind):
    if file.name.endswith('2/metadata/metadata'):
      now[0] += 10 * hashes.PATIENCE
      looks.append(file.name)
      if len(looks) == 1:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return digest(file, kind)

  monkeypatch.setattr(hashlib, 'file_digest', read)
  assert not hashes.damage(checkpoint.folder(run, 2)) and len(looks) == 2
