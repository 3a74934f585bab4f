"""Runs to which something happens, beside one that nothing happens to."""

import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import machines
import numpy as np
import pytest
from conftest import TOY_FLAGS, make_config

from data_pipelines.stream import loader, mixture, rows
from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, resuming, whole
from ttt_jax.training import follow, saver, stopping, train, watchdog

STEPS = 8
ROOT = pathlib.Path(checkpoint.__file__).parents[1]


def config_for(toy_data, **changes):
  small = {
    'model__layers': 1,
    'model__attention': 'dense',
    'model__remat': 'none',
    'train__steps': STEPS,
    'train__log_every': 1,
    'train__checkpoint_every': 3,
  }
  return make_config(data__directory=str(toy_data), **small | changes)


def reports(workdir) -> dict[int, dict]:
  lines = pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()
  return {json.loads(line)['step']: json.loads(line) for line in lines}


def flat(params) -> np.ndarray:
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


@pytest.fixture(scope='module')
def undisturbed(toy_data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('undisturbed')
  last = train.train(config_for(toy_data), workdir)
  return reports(workdir), flat(last.params)


@pytest.fixture
def stopped(toy_data, tmp_path):
  """A run that was told to stop: its folder, and the step that it reached."""
  return tmp_path / 'run', stop_at(4, config_for(toy_data), tmp_path / 'run')


def stop_at(step, config, workdir) -> int:
  """Trains, and is told to stop when the batch of a step is taken."""
  original = loader.batches

  def batches(*args, start, **kwargs):
    for number, batch in enumerate(original(*args, start=start, **kwargs), start + 1):
      if number == step:
        os.kill(os.getpid(), signal.SIGTERM)
      yield batch

  with pytest.MonkeyPatch.context() as patch, pytest.raises(stopping.Stopped) as error:
    patch.setattr(loader, 'batches', batches)
    train.train(config, workdir)
  assert f'step {checkpoint.latest(workdir)} is saved' in str(error.value)
  return checkpoint.latest(workdir)


def test_a_run_that_is_told_to_stop_saves_and_goes_on_bit_for_bit(
  stopped, undisturbed, toy_data
):
  workdir, step = stopped
  assert 4 <= step <= 6 and max(reports(workdir)) == step
  assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  last = train.train(config_for(toy_data), workdir)
  figures, params = undisturbed
  np.testing.assert_array_equal(flat(last.params), params)
  assert {n: line['loss'] for n, line in reports(workdir).items()} == {
    n: line['loss'] for n, line in figures.items()
  }


@pytest.mark.parametrize(
  'changes',
  [
    {'mesh__data': 1, 'mesh__fsdp': 2, 'mesh__tensor': 2, 'mesh__sequence': 2},
    {'mesh__data': 2, 'mesh__outer': 2, 'mesh__fsdp': 2, 'data__workers': 1},
  ],
)
def test_a_run_goes_on_on_another_mesh_with_other_workers(
  stopped, undisturbed, toy_data, changes
):
  workdir, step = stopped
  last = train.train(config_for(toy_data, **changes), workdir)
  figures, params = undisturbed
  for number in range(step + 1, STEPS + 1):
    for key in ('loss', 'gradient_norm', 'learning_rate'):
      np.testing.assert_allclose(
        reports(workdir)[number][key], figures[number][key], rtol=1e-4, err_msg=key
      )
  np.testing.assert_allclose(flat(last.params), params, atol=1e-4)


def test_a_run_goes_on_from_the_step_before_a_damaged_one(stopped, undisturbed, toy_data):
  workdir, step = stopped
  for path in (checkpoint.folder(workdir, step) / 'optimizer').rglob('manifest.ocdbt'):
    path.write_bytes(bytes(path.stat().st_size))
  last = train.train(config_for(toy_data), workdir)
  np.testing.assert_array_equal(flat(last.params), undisturbed[1])
  assert (workdir / checkpoint.DAMAGED / str(step)).is_dir()


def test_a_batch_that_makes_no_numbers_is_skipped_and_its_records_are_named(
  toy_data, tmp_path, monkeypatch
):
  config = config_for(toy_data, train__steps=5)
  original = loader.batches

  def poisoned(*args, **kwargs):
    for number, batch in enumerate(original(*args, **kwargs), 1):
      if number == 3:
        batch.weights[2] *= np.nan
      yield batch

  monkeypatch.setattr(loader, 'batches', poisoned)
  last = train.train(config, tmp_path)
  assert np.isfinite(flat(last.params)).all()
  found = reports(tmp_path)
  assert [found[n]['skipped'] for n in range(1, 6)] == [0, 0, 1, 1, 1]
  assert 'loss' not in found[3] and np.isfinite(found[4]['loss'])
  assert found[4]['learning_rate'] == found[3]['learning_rate'] > found[2]['learning_rate']
  (line,) = (tmp_path / follow.SKIPPED).read_text().splitlines()
  told = json.loads(line)
  assert told['step'] == 3 and told['loss'] == 'nan'
  (source,) = mixture.open_all(config.data)
  stream = rows.Rows([source], config.data, config.mask, config.objective, config.seed)
  wanted = [
    document.tokens.tolist() for row in range(16, 24) for document, _ in stream.read(row)
  ]
  whole = {
    f'{toy_data}: {record.key}': record.document.tokens.tolist()
    for record in (source[n] for n in range(len(source)))
  }
  assert len(told['records']) == len(wanted)
  for name, tokens in zip(told['records'], wanted):  # a document may be cut at its end
    assert tokens[:20] == whole[name][:20]


def full_disk():
  """Storage on which no large file can be written, as long as the first limit is in force."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, hard))
  return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_pauses_saving_and_does_not_stop_the_steps(
  toy_data, tmp_path, monkeypatch, undisturbed, caplog
):
  original, alarm, release = loader.batches, saver.Saver._alarm, []

  def batches(*args, **kwargs):
    for number, batch in enumerate(original(*args, **kwargs), 1):
      if number == 2:
        release.append(full_disk())
      yield batch

  def alarmed(*told):
    alarm(*told)
    release.pop()()

  monkeypatch.setattr(loader, 'batches', batches)
  monkeypatch.setattr(saver.Saver, '_alarm', alarmed)
  try:
    last = train.train(config_for(toy_data), tmp_path)
  finally:
    for free in release:
      free()
  np.testing.assert_array_equal(flat(last.params), undisturbed[1])
  assert 'ALARM: step 3 is not saved' in caplog.text
  assert checkpoint.steps(tmp_path) == [6, 8] and resuming.newest_whole(tmp_path) == 8
  assert sorted(os.listdir(tmp_path / checkpoint.DIRECTORY)) == ['6', '8']


@pytest.mark.parametrize(
  'error,borne',
  [(OSError(errno.ENOSPC, 'full'), 9), (ValueError('a defect'), 2), (TimeoutError(), 2)],
)
def test_only_a_full_disk_is_borne_for_ever(tmp_path, monkeypatch, error, borne):
  def fail(*arguments):
    raise error

  monkeypatch.setattr(checkpoint, 'save', fail)
  with checkpoint.opened(tmp_path, 2) as checkpoints:
    store = saver.Saver(checkpoints, tmp_path, {})
    for step in range(borne):
      store.save(step, [], [])
    if borne == 2:
      with pytest.raises(type(error), match=f'^{error}$'):
        store.save(3, [], [])
    else:
      with pytest.raises(checkpoint.CheckpointError, match='could not be saved'):
        store.finish()


def test_a_step_is_saved_though_older_ones_cannot_be_deleted(tmp_path, monkeypatch, caplog):
  params = {'a': jax.numpy.zeros(8)}
  with checkpoint.opened(tmp_path, 1) as checkpoints:
    store = saver.Saver(checkpoints, tmp_path, {})
    store.save(1, params, params)
    store.finish()

    def fail(*_):
      raise OSError(errno.ENOTEMPTY, 'Directory not empty')

    with monkeypatch.context() as patch:
      patch.setattr(checkpoints._checkpoint_deleter, 'delete_steps', fail)
      store.save(2, params, params)
      store.finish()
    assert 'step 2 is saved, but older ones could not be deleted' in caplog.text
    assert checkpoint.steps(tmp_path) == [1, 2] and resuming.newest_whole(tmp_path) == 2
    store.save(3, params, params)
    store.finish()
  assert checkpoint.steps(tmp_path) == [3]  # once they can be deleted, they are


def test_a_start_without_room_keeps_the_description_of_the_last_one(
  toy_data, stopped, monkeypatch, caplog
):
  def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  folder, step = stopped
  monkeypatch.setattr(assets_lib.Assets, 'save', fail)
  train.train(config_for(toy_data), folder)
  assert 'ALARM: cannot write to' in caplog.text and resuming.newest_whole(folder) == STEPS
  with pytest.raises(checkpoint.CheckpointError, match='No space left'):
    train.train(config_for(toy_data), folder.with_name('new'))


# What comes before may take its time; then much time passes at once.
HANG = """
import sys, time, types
from conftest import make_config
from ttt_jax import resuming
from ttt_jax.training import train, watchdog
def stuck(workdir):
  late = time.monotonic() + 99
  watchdog.time = types.SimpleNamespace(monotonic=lambda: late)
  time.sleep(600)
resuming.newest_whole = stuck
train.train(make_config(data__directory=sys.argv[1], guard__hang=60.0), sys.argv[2])
"""


def test_a_start_that_hangs_is_ended(toy_data, tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', HANG, str(toy_data), str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT / 'tests')},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == watchdog.CODE and 'in stuck' in done.stderr


def test_what_a_failed_save_writes_late_goes_with_a_later_save(tmp_path, monkeypatch, caplog):
  def fail(workdir):
    raise OSError(errno.EIO, 'does not answer')

  late = tmp_path / checkpoint.DIRECTORY / f'1{whole.TEMPORARY}-late'
  with checkpoint.opened(tmp_path, 2) as checkpoints:
    store = saver.Saver(checkpoints, tmp_path, {})
    params = {'a': jax.numpy.zeros(9)}
    store.save(2, params, params)
    late.mkdir()
    store.save(3, params, params)
    assert not late.exists()
    monkeypatch.setattr(checkpoint, 'sweep', fail)
    store.finish()
  assert checkpoint.steps(tmp_path) == [2, 3] and 'does not answer' in caplog.text


def test_without_room_for_a_checkpoint_none_is_begun(tmp_path, monkeypatch, caplog):
  free = [2**20]
  monkeypatch.setattr(saver.shutil, 'disk_usage', lambda path: Usage(free[0]))
  with checkpoint.opened(tmp_path, 2) as checkpoints:
    store = saver.Saver(checkpoints, tmp_path, {})
    params = {'a': jax.numpy.zeros(2**18)}
    store.save(1, params, params)
    assert 'ALARM: step 1 is not saved' in caplog.text and 'no room' in caplog.text
    with pytest.raises(checkpoint.CheckpointError, match=r'steps \[1\] could not'):
      store.finish()
    free[0] = 2**22
    store.save(2, params, params)
    store.finish()
  assert resuming.newest_whole(tmp_path) == 2


class Usage(NamedTuple):
  free: int


FLAGS = [
  *TOY_FLAGS,
  '--config.train.log_every=1',
  '--config.train.steps=100000',
]


def test_a_process_that_gets_sigterm_saves_and_ends(toy_data, tmp_path):
  flags = [*FLAGS, f'--config.data.directory={toy_data}', f'--workdir={tmp_path}']
  flags += ['--config.data.workers=1']
  process = subprocess.Popen(
    [sys.executable, '-m', 'ttt_jax.cli.train', *flags],
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': machines.xla_flags(devices=1)},
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    while not (tmp_path / 'metrics.jsonl').exists():
      assert process.poll() is None, process.stderr.read()
      time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=300)[1]
  finally:
    process.kill()
  step = resuming.newest_whole(tmp_path)
  assert process.returncode == stopping.CODE and f'stopped: step {step} is saved' in said
  assert max(reports(tmp_path)) == step and 'Traceback' not in said


def test_a_process_that_cannot_end_ends_all_the_same():
  script = 'import signal, time; from ttt_jax.training import stopping\n'
  script += (
    'with stopping.Notice(0.3):\n  signal.raise_signal(signal.SIGTERM)\n  time.sleep(99)'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, timeout=300, check=False
  )
  assert done.returncode == stopping.CODE and 'config.guard.grace' in done.stderr
