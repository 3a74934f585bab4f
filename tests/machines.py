"""Machines on which some tests cannot be; in CI none is left out: there they run, or fail."""

import importlib
import os
import platform
import shutil
import sys
import types
from typing import NoReturn

import pytest

_CI = bool(os.environ.get('CI'))

# Libtpu is made for these alone.
by_libtpu = pytest.mark.skipif(
  not _CI and (sys.platform, platform.machine()) != ('linux', 'x86_64'),
  reason='there is no libtpu for this machine',
)

by_linux = pytest.mark.skipif(
  not _CI and sys.platform != 'linux', reason='workers of a pod have /proc and flock'
)


def xla_flags(devices: int) -> str:
  """For so many virtual devices; and to compile faster still, where little is optimised."""
  flags = f'--xla_force_host_platform_device_count={devices}'
  quick = os.environ.get('JAX_DISABLE_MOST_OPTIMIZATIONS') == 'true'
  return flags + quick * ' --xla_cpu_use_fusion_emitters=false'


def program(*names: str) -> str:
  """Where one of these programs is. In CI a test without it fails; elsewhere it is skipped."""
  return next(filter(None, map(shutil.which, names)), None) or _lack(names[0])


def package(name: str) -> types.ModuleType:
  """Imports a package of others. In CI a test without it fails; elsewhere it is skipped.

  One that is here and cannot be imported is no reason to skip, nor is any module of ours.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name != name:
      raise
  _lack(name)


def _lack(what: str) -> NoReturn:
  reason = f'there is no {what} here'
  if os.environ.get('CI'):
    pytest.fail(reason)
  pytest.skip(reason, allow_module_level=True)  # or in a test
