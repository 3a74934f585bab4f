"""Folders that take the place of others, and what goes wrong meanwhile."""

import os
import pathlib
import shutil

import pytest

from ttt_jax import folders

KIND = 'kind'


@pytest.fixture
def out(tmp_path) -> pathlib.Path:
  """A folder of the kind that is replaced."""
  make(tmp_path / 'out', 'old')
  return tmp_path / 'out'


def make(out, text):
  with folders.new(out, KIND) as staging:
    for name in (KIND, 'a'):
      (staging / name).write_text(text)


def said(folder) -> list[str]:
  return [(folder / name).read_text() for name in (KIND, 'a')]


def test_a_folder_takes_the_place_of_one_of_its_kind(out):
  make(out, 'new')
  assert said(out) == ['new'] * 2 and os.listdir(out.parent) == ['out']


@pytest.mark.parametrize('error', [OSError('full'), KeyboardInterrupt()])
def test_what_cannot_be_replaced_is_what_it_was(out, monkeypatch, error):
  rename = pathlib.Path.rename

  def fail(self, target):
    if '.partial.' in self.name:
      raise error
    return rename(self, target)

  raised = folders.FolderError if isinstance(error, OSError) else KeyboardInterrupt
  with monkeypatch.context() as patch, pytest.raises(raised):
    patch.setattr(pathlib.Path, 'rename', fail)
    make(out, 'new')
  assert said(out) == ['old'] * 2 and os.listdir(out.parent) == ['out']


def test_the_new_one_is_there_even_if_the_old_one_cannot_be_deleted(out, monkeypatch, caplog):
  remove = shutil.rmtree

  def fail(path, *args, **kwargs):
    if (pathlib.Path(path) / KIND).exists():
      os.remove(pathlib.Path(path) / KIND)
      raise OSError('does not answer')
    remove(path, *args, **kwargs)

  monkeypatch.setattr(shutil, 'rmtree', fail)
  make(out, 'new')
  assert said(out) == ['new'] * 2
  assert 'does not answer' in caplog.text and 'out.replaced.' in caplog.text


@pytest.mark.parametrize('replaces', [None, KIND])
def test_what_somebody_has_put_there_meanwhile_stays(tmp_path, replaces):
  out = tmp_path / 'out'
  used = pytest.raises(folders.FolderError, match='out holds something already')
  with used, folders.new(out, replaces) as staging:
    (staging / KIND).touch()
    out.mkdir()
    (out / 'precious').touch()
  assert os.listdir(tmp_path) == ['out'] and os.listdir(out) == ['precious']


def test_of_two_that_write_one_folder_the_second_is_refused(tmp_path):
  used = pytest.raises(folders.FolderError, match='holds something already')
  with used, folders.new(tmp_path / 'out') as staging:
    (staging / 'second').touch()
    with folders.new(tmp_path / 'out') as other:
      (other / 'first').touch()
  assert os.listdir(tmp_path / 'out') == ['first']


def test_all_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
  out, sync, settled = tmp_path / 'out', os.fsync, []

  def watched(file):
    settled.append((pathlib.Path(os.readlink(f'/proc/self/fd/{file}')).name, out.exists()))
    sync(file)

  monkeypatch.setattr(os, 'fsync', watched)
  with folders.new(out) as staging:
    (staging / 'inner').mkdir()
    (staging / 'inner' / 'a').write_text('text')
    name = staging.name
  assert settled[:3] == [(name, False), ('a', False), ('inner', False)]
  assert settled[3:] == [(tmp_path.name, True)]
