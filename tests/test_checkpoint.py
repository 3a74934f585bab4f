"""Steps of a run that were damaged, one kind of file and one kind of damage after the other."""

import errno
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from toy_run import files, flip, save, state

from ttt_jax import checkpoint, description, hashes, json_file, parameters, resuming, whole
from ttt_jax.cli import checkpoint as tool


def zero(path: pathlib.Path) -> None:
  path.write_bytes(bytes(path.stat().st_size))


def truncate(path: pathlib.Path) -> None:
  os.truncate(path, path.stat().st_size // 2)


DAMAGES = {each.__name__: each for each in (flip, zero, truncate, os.remove)}


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


def test_every_file_of_a_step_is_hashed_before_it_has_its_name(tmp_path, monkeypatch):
  seen = []
  write, sync, settled = hashes.write, os.fsync, set()

  def watched(folder):
    seen.append((folder.name, checkpoint.steps(tmp_path)))
    write(folder)

  def watched_sync(file):
    path = pathlib.Path(os.readlink(f'/proc/self/fd/{file}'))
    settled.add((path.name, not checkpoint.steps(tmp_path)))
    sync(file)

  monkeypatch.setattr(hashes, 'write', watched)
  monkeypatch.setattr(os, 'fsync', watched_sync)
  save(tmp_path, [5])
  assert [steps for _, steps in seen] == [[]] and checkpoint.steps(tmp_path) == [5]
  step = checkpoint.folder(tmp_path, 5)
  assert len(files(step)) > 10 and not hashes.damage(step)
  assert settled >= {(path.name, True) for path in step.rglob('*')}
  assert (checkpoint.DIRECTORY, False) in settled  # the name, too
  assert os.listdir(tmp_path / checkpoint.DIRECTORY) == ['5']


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_step_with_any_file_damaged_is_set_aside_for_the_one_before(run, damage):
  names = [path.relative_to(run) for path in files(checkpoint.folder(run, 2))]
  kinds = {name.name if len(name.name) < 20 else 'data' for name in names}
  assert kinds >= {'hashes.json', 'manifest.ocdbt', '_METADATA', 'metadata', 'data'}
  whole = run.with_name('whole')
  shutil.copytree(run, whole)
  for number, name in enumerate(names):
    DAMAGES[damage](run / name)
    assert resuming.newest_whole(run) == 1, name
    aside = run / checkpoint.DAMAGED / (f'2.{number}' if number else '2')
    assert len(files(aside)) == len(names) - (damage == 'remove')
    shutil.copytree(checkpoint.folder(whole, 2), checkpoint.folder(run, 2))
  assert resuming.newest_whole(run) == 2


def test_what_is_restored_is_what_was_saved_before_the_damage(run):
  flip(max(files(checkpoint.folder(run, 2) / 'params'), key=lambda path: path.stat().st_size))
  with pytest.raises(
    checkpoint.CheckpointError, match=r'checkpoints/2 is damaged: params/.* has'
  ):
    parameters.restore(run)
  step = resuming.newest_whole(run)
  with checkpoint.opened(run, 2) as checkpoints:
    got = checkpoint.restore(checkpoints, step, *state(0))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(state(1))):
    np.testing.assert_array_equal(a, b)


def test_readers_of_parameters_do_not_mind_the_optimizer(run):
  flip(checkpoint.folder(run, 2) / 'optimizer' / '_METADATA')
  np.testing.assert_array_equal(parameters.restore(run)['a'], state(2)[0]['a'])


def test_an_empty_step_a_partial_copy_and_a_stranger_are_no_steps(run):
  checkpoint.folder(run, 9).mkdir()
  shutil.copytree(checkpoint.folder(run, 2), checkpoint.folder(run, 8))
  shutil.rmtree(checkpoint.folder(run, 8) / 'optimizer')
  (checkpoint.folder(run, 2) / 'params' / 'more').touch()
  (checkpoint.folder(run, 1) / '.nfs0001').touch()  # network file systems leave such
  assert resuming.newest_whole(run) == 1
  assert sorted(os.listdir(run / checkpoint.DAMAGED)) == ['2', '8', '9']


def test_files_whose_names_begin_with_a_dot_are_a_part_of_a_step(run):
  step = checkpoint.folder(run, 2)
  (step / 'params' / '.zarray').write_text('[300, 4]')
  hashes.write(step)
  (step / '.DS_Store').touch()
  (step / 'params' / '._a').touch()
  assert not hashes.damage(step)
  (step / 'params' / '.zarray').write_text('[400, 3]')
  assert hashes.damage(step) == ['params/.zarray has changed']
  (step / 'params' / '.zgroup').touch()
  assert 'params/.zgroup does not belong to it' in hashes.damage(step)


def test_what_a_save_has_left_is_no_hindrance_where_it_cannot_be_deleted(tmp_path, monkeypatch):
  home = tmp_path / checkpoint.DIRECTORY
  for name in (whole.TEMPORARY, 2 * whole.TEMPORARY):  # hashed, or not yet
    (home / f'6{name}' / 'params').mkdir(parents=True)
  remove = shutil.rmtree

  def fail(path, ignore_errors=False, **_):
    if not ignore_errors:
      raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

  monkeypatch.setattr(shutil, 'rmtree', fail)
  save(tmp_path, [6])
  assert checkpoint.steps(tmp_path) == [6] and len(os.listdir(home)) == 3
  monkeypatch.setattr(shutil, 'rmtree', remove)
  save(tmp_path, [7])
  assert sorted(os.listdir(home)) == ['6', '7']


def test_parameters_that_a_stranger_wrote_are_refused_in_words(run):
  with pytest.raises(checkpoint.CheckpointError, match=r'a: .*300, 4.*wanted \(300, 5\)'):
    shape = jax.ShapeDtypeStruct((300, 5), np.float32)
    parameters.restore(run, {'a': shape, 'b': {'c': shape}})
  for text in ('{}', 'none', '{"tree_metadata": {}}'):
    (checkpoint.folder(run, 2) / 'params' / '_METADATA').write_text(text)
    hashes.write(checkpoint.folder(run, 2))
    with pytest.raises(checkpoint.CheckpointError, match='these parameters cannot be read'):
      parameters.restore(run)


def test_what_is_no_file_does_not_belong_to_a_step(run, tmp_path):
  step, outside = checkpoint.folder(run, 2), tmp_path / 'outside'
  shutil.copytree(step, outside)
  for name in ('metadata/metadata', hashes.FILE):  # the same content, and not its own
    shutil.copytree(step, run / 'copy')
    (run / 'copy' / name).unlink()
    (run / 'copy' / name).symlink_to(outside / name)
    (wrong,) = hashes.damage(run / 'copy')
    assert name in wrong and ('belong' in wrong or 'is no file' in wrong)
    shutil.rmtree(run / 'copy')
  shutil.copytree(step, run / 'copy')
  shutil.rmtree(run / 'copy' / 'params')
  (run / 'copy' / 'params').symlink_to(outside / 'params')
  assert 'params does not belong to it' in hashes.damage(run / 'copy')
  assert 'is missing' in hashes.damage(run / 'copy', 'params')[0]
  with pytest.raises(OSError, match='neither a file nor a folder: .*params'):
    hashes.write(run / 'copy')


def test_a_pipe_is_never_waited_for(run):
  step = checkpoint.folder(run, 2)
  about = json_file.read(step / hashes.FILE)
  about['files']['pipe'] = [0, hashlib.sha256().hexdigest()]
  json_file.write(step / hashes.FILE, about)
  os.mkfifo(step / 'pipe')
  other = threading.Thread(target=lambda: os.close(os.open(step / 'pipe', os.O_WRONLY)))
  other.start()  # waits for somebody who opens the pipe, and lets them read nothing
  try:
    assert hashes.damage(step) == ['pipe does not belong to it']
  finally:
    while other.is_alive():
      os.close(os.open(step / 'pipe', os.O_RDONLY | os.O_NONBLOCK))
      other.join(0.01)


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(run):
  (run / description.FILE).write_text('{}')
  shutil.rmtree(run / checkpoint.DIRECTORY)
  with pytest.raises(checkpoint.CheckpointError, match='has no folder checkpoints: bring it'):
    resuming.newest_whole(run)
  (run / checkpoint.DIRECTORY).mkdir()  # it was killed before it saved anything
  assert resuming.newest_whole(run) is None


def test_a_folder_that_does_not_answer_is_not_taken_for_an_empty_one(run, monkeypatch):
  def fail(path):
    raise OSError(errno.ESTALE, 'Stale file handle')

  monkeypatch.setattr(os, 'listdir', fail)
  with pytest.raises(checkpoint.CheckpointError, match='cannot be read: .*Stale'):
    resuming.newest_whole(run)


def test_a_step_that_orbax_declines_is_an_error(run):
  with pytest.raises(checkpoint.CheckpointError, match='step 1 is not saved, since step 2 is'):
    save(run, [1])


def test_the_first_error_is_told_and_not_that_of_closing(tmp_path, monkeypatch, caplog):
  def fail(self):
    raise ValueError('the disk')

  with pytest.raises(ZeroDivisionError), checkpoint.opened(tmp_path, 2) as checkpoints:
    monkeypatch.setattr(type(checkpoints), 'close', fail)
    raise ZeroDivisionError
  assert 'has failed, too: the disk' in caplog.text


def test_a_process_waits_until_it_sees_the_step_that_the_first_one_sees():
  seen, reloaded = iter([9, 9, 4]), []

  class Checkpoints:
    directory = 'run'

    def latest_step(self):
      return next(seen)

    def reload(self):
      reloaded.append(1)

  resuming.wait_for(Checkpoints(), 4)
  assert len(reloaded) == 2
  with pytest.raises(checkpoint.CheckpointError, match='sees step 7 as the latest'):
    seen = itertools.repeat(7)
    resuming.wait_for(Checkpoints(), 4, patience=0)


def test_a_run_without_a_whole_step_does_not_begin_anew(run, tmp_path):
  assert resuming.newest_whole(tmp_path / 'new') is None
  for step in (1, 2):
    truncate(checkpoint.folder(run, step) / 'params' / '_METADATA')
  with pytest.raises(checkpoint.CheckpointError, match='no checkpoint is whole'):
    resuming.newest_whole(run)
  with pytest.raises(checkpoint.CheckpointError, match='no checkpoint is whole'):
    resuming.newest_whole(run)  # a second start must not take the run for a new one


def test_a_save_that_was_cut_off_leaves_nothing(run, monkeypatch):
  def fail(folder):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
    patch.setattr(hashes, 'write', fail)
    save(run, [3])
  assert checkpoint.steps(run) == [1, 2]  # nothing was deleted for it
  save(run, [3])
  assert sorted(os.listdir(run / checkpoint.DIRECTORY)) == ['2', '3']


def test_the_latest_steps_and_every_nth_are_kept(tmp_path):
  save(tmp_path, range(1, 8), keep=1, every=3)
  assert checkpoint.steps(tmp_path) == [3, 6, 7]


def test_pruning_keeps_the_same_and_never_for_a_damaged_step(tmp_path):
  save(tmp_path, range(1, 8), keep=9)
  flip(checkpoint.folder(tmp_path, 7) / hashes.FILE)
  with pytest.raises(checkpoint.CheckpointError, match='7 is damaged'):
    checkpoint.prune(tmp_path, 1, 3)
  assert resuming.newest_whole(tmp_path) == 6
  assert checkpoint.prune(tmp_path, 2, 3) == [1, 2, 4]
  assert checkpoint.steps(tmp_path) == [3, 5, 6] and checkpoint.prune(tmp_path, 2, 3) == []


def test_pruning_goes_on_where_a_run_deletes_meanwhile(run, monkeypatch):
  for step in (3, 4):
    shutil.copytree(checkpoint.folder(run, 2), checkpoint.folder(run, step))
  remove, listed = shutil.rmtree, checkpoint.steps(run)

  def late(path, *args, **kwargs):
    if path.name.startswith('1.'):
      remove(path)
    remove(path, *args, **kwargs)

  monkeypatch.setattr(checkpoint, 'steps', lambda _: listed)
  remove(checkpoint.folder(run, 2))
  monkeypatch.setattr(shutil, 'rmtree', late)
  checkpoint.prune(run, 1)
  assert os.listdir(run / checkpoint.DIRECTORY) == ['4']


def test_pruning_starts_no_backend_that_a_run_may_have_for_itself(run):
  command = [sys.executable, '-m', 'ttt_jax.cli.checkpoint', 'prune', f'--workdir={run}']
  environment = os.environ | {'JAX_PLATFORMS': 'none_such'}
  done = subprocess.run(
    [*command, '--keep=1'], env=environment, capture_output=True, text=True, check=True
  )
  assert done.stdout == 'deleted: 1\n' and checkpoint.steps(run) == [2]


def test_the_tool_takes_no_step_for_damaged_that_a_run_deletes_meanwhile(
  run, monkeypatch, capsys
):
  def late(folder, *more, original=hashes.damage):
    if folder.name == '1':
      shutil.rmtree(folder)
    return original(folder, *more)

  monkeypatch.setattr(hashes, 'damage', late)
  assert tool.verify(run) == 0
  assert capsys.readouterr().out == '1: deleted meanwhile\n2: whole\n'


@pytest.mark.parametrize('files', [[1], 'ab', {'a': 5}, {}])
def test_hashes_that_are_none_are_damage(run, files):
  text = json.dumps({'kind': 'sha256', 'files': files})
  (checkpoint.folder(run, 2) / hashes.FILE).write_text(text)
  assert resuming.newest_whole(run) == 1


def test_a_step_that_goes_while_it_is_verified_gives_way_to_a_later_one(run, monkeypatch):
  check = hashes.damage

  def late(folder, *more):
    if folder.name == '2' and checkpoint.latest(run) == 2:
      save(run, [3], keep=1)
    return check(folder, *more)

  monkeypatch.setattr(hashes, 'damage', late)
  assert checkpoint.verified(run) == 3 and checkpoint.steps(run) == [3]


def test_a_step_that_comes_while_another_one_is_verified_is_not_read(run, monkeypatch):
  damage = checkpoint.damage

  def slowly(*args):
    found = damage(*args)
    save(run, [3], keep=5)
    return found

  monkeypatch.setattr(checkpoint, 'damage', slowly)
  assert (parameters.restore(run)['a'] == 2).all() and checkpoint.latest(run) == 3
  assert (parameters.read(run, 1, ('a',)) == 1).all()
  assert parameters.shapes(run, 2)['b']['c'].shape == (8,)


def test_the_tool_tells_what_is_whole(run, capsys):
  assert tool.verify(run) == 0
  flip(checkpoint.folder(run, 1) / 'metadata' / 'metadata')
  assert tool.verify(run) == 1
  said = capsys.readouterr().out
  assert '1: damaged' in said and 'metadata/metadata has changed' in said and '2: whole' in said
  assert checkpoint.steps(run) == [1, 2]  # it only looks
  resuming.set_aside(run, 1)
  tool.show(run)
  said = capsys.readouterr().out
  assert 'damaged/1' in said and '2' in said
