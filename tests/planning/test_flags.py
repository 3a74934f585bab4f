"""What the tool for plans says of flags that cannot be used, before it compiles anything."""

import pytest
from machines import by_libtpu
from tools import tool

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
  words = '--config=configs/tiny.py', '--topology=v5e:2x2', '--keep=', flag.format(tmp_path)
  code, output = tool('plan', *words)
  (line,) = output.splitlines()
  assert code == 1
  assert line.startswith('error: ') and flag.split('=')[0] in line and said in line
