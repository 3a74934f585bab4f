"""Arrays that are kept, and disks that are full."""

import errno
import os

import numpy as np

from data_pipelines import cache


def test_what_is_kept_is_not_made_again(tmp_path):
  made = []

  def make():
    made.append(1)
    return {'a': np.arange(3)}

  for depends in (['x'], ['x'], ['y']):
    found = cache.cached(tmp_path, 'n', depends, make, lambda arrays: True)
    np.testing.assert_array_equal(found['a'], range(3))
  assert len(made) == 2


def test_what_does_not_fit_is_made_again(tmp_path, caplog):
  def fits(arrays):
    return arrays['a'].shape == (3,)

  cache.cached(tmp_path, 'n', [], lambda: {'a': np.arange(4)}, fits)
  for _ in range(2):
    found = cache.cached(tmp_path, 'n', [], lambda: {'a': np.arange(3)}, fits)
    assert found['a'].shape == (3,)
  assert caplog.text.count('has other arrays') == 1


def test_a_full_disk_keeps_nothing_of_it(tmp_path, monkeypatch, caplog):
  def fill(path, **_):
    path.write_bytes(b'a part')
    raise OSError(errno.ENOSPC, 'full')

  monkeypatch.setattr(np, 'savez', fill)
  folder = tmp_path / 'cache'
  found = cache.cached(folder, 'n', [], lambda: {'a': np.arange(3)}, lambda arrays: True)
  np.testing.assert_array_equal(found['a'], range(3))
  assert os.listdir(folder) == [] and 'cannot keep' in caplog.text
