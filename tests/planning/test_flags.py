"""What the tool for plans says of flags that cannot be used, before it compiles anything."""

import pathlib
import subprocess
import sys

import pytest
from machines import by_libtpu

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = by_libtpu


@pytest.mark.parametrize(
  'flag,said',
  [
    ('--json={}/none/plans.json', 'give a file in a folder that exists'),
    ('--plot={}', 'give a file in a folder that exists'),
    ('--keep={}/file/plans', 'cannot be made a folder'),
    ('--rows_per_part=-1', 'non-negative'),
  ],
)
def test_flags_that_cannot_be_used_are_refused_at_once(tmp_path, flag, said):
  (tmp_path / 'file').touch()
  command = [sys.executable, '-m', 'ttt_jax.cli.plan', '--config=configs/tiny.py']
  command += ['--topology=v5e:2x2', '--keep=', flag.format(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 1 and not done.stdout
  (line,) = done.stderr.splitlines()
  assert line.startswith('error: ') and flag.split('=')[0] in line and said in line
