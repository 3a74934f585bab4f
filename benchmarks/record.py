"""What benchmarks share: their flags, what they ran on, and the file that keeps the numbers."""

import argparse
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from ttt_jax import json_file, machine


def parser(about: str, quick: str) -> argparse.ArgumentParser:
  """A command line with --quick and --json.

  Args:
    about: the benchmark's docstring, whose first line is shown.
    quick: what --quick leaves out.
  """
  made = argparse.ArgumentParser(description=about.splitlines()[0])
  made.add_argument('--quick', action='store_true', help=quick)
  made.add_argument('--json', metavar='FILE', help='also write the results to FILE')
  return made


def begin(formula: str, libraries: Sequence[str], **more: Any) -> dict[str, Any]:
  """Prints the formula and what it runs on, `where`; returns both, for `save`.

  Args:
    formula: how the figures are made.
    libraries: names of packages whose versions matter.
    **more: what else does, by name.
  """
  where = {
    'platform': f'{platform.platform()}, {machine.cores()} cores',
    'load': round(os.getloadavg()[0], 1),  # before it runs: programs that ran beside
    **more,
    'python': platform.python_version(),
    **{name: metadata.version(name) for name in libraries},
  }
  print(formula)
  print(', '.join(f'{key} {value}' for key, value in where.items()), flush=True)
  return {'formula': formula, 'where': where}


def save(results: dict[str, Any], path: str | None) -> None:
  """Writes `results` to `path`, if there is one; the file is whole at any time."""
  if path:
    json_file.write(path, results)
