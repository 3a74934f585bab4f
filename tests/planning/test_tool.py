"""The tool for plans, on a data set: a sweep, and then the one plan that it made."""

import json
import pathlib
import subprocess
import sys

from machines import by_libtpu

from ttt_jax.planning import plan as plan_lib
from ttt_jax.planning import report

ROOT = pathlib.Path(__file__).parents[2]
# One remat policy, for each takes seconds to compile, and one process, for starting does too.
SCRIPT = """
import sys
from absl import flags
from ttt_jax.cli import plan
from ttt_jax.planning import sweep

sweep.REMATS = ('full',)
folder = sys.argv.pop()
flags.FLAGS(sys.argv)
for way in ('sweep', 'nosweep'):
  flags.FLAGS(['', f'--{way}', f'--json={folder}/{way}.json', f'--plot={folder}/{way}.svg'])
  plan.main()
"""

pytestmark = by_libtpu


def written(folder, way):
  """The plans in the files that the tool wrote."""
  made = json.loads((folder / f'{way}.json').read_text())
  assert (folder / f'{way}.svg').read_text().count('class="state"') == len(made)
  return list(map(plan_lib.from_dict, made))


def test_a_sweep_keeps_what_one_plan_then_says(toy_data, tmp_path):
  words = ['--config=configs/tiny.py', '--topology=v5e:1x1', f'--keep={tmp_path}/kept']
  words += [f'--config.data.directory={toy_data}', '--config.data.row_length=128']
  words += ['--config.model.layers=1', '--config.mesh.data=1', '--rows_per_part=2']
  words += ['--config.model.remat=full', '--config.model.loss_chunk=128']
  command = [sys.executable, '-c', SCRIPT, *words, str(tmp_path)]
  done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 0, done.stderr
  swept, (one,) = written(tmp_path, 'sweep'), written(tmp_path, 'nosweep')
  assert swept == [one] and one.remat == 'full' and one.batch == (2, 128, 1)
  assert len(list((tmp_path / 'kept').iterdir())) == 1
  assert 0 < one.rows.fill < 1  # of rows that were measured
  assert done.stdout == f'{report.table(swept)}\n{report.text(one)}\n'
