"""Machines on which some tests cannot be; that of CI runs them all."""

import os
import platform
import shutil
import sys

import pytest

# Libtpu is made for these alone.
by_libtpu = pytest.mark.skipif(
  (sys.platform, platform.machine()) != ('linux', 'x86_64'),
  reason='there is no libtpu for this machine',
)

by_linux = pytest.mark.skipif(
  sys.platform != 'linux', reason='workers of a pod have /proc and flock'
)


def program(*names: str) -> str:
  """Where one of these programs is. In CI a test without it fails; elsewhere it is skipped."""
  path = next(filter(None, map(shutil.which, names)), None)
  if path is None:
    (pytest.fail if os.environ.get('CI') else pytest.skip)(f'there is no {names[0]} here')
  return path
