"""Machines on which some tests cannot be; that of CI runs them all."""

import platform
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
