"""Judges trained models on held-out records.

ttt-evaluate --checkpoint=RUN --data=DATA --out=RESULTS
ttt-evaluate --checkpoint=RUN,OTHER --suite=suite.yaml --out=RESULTS

Without a suite, every task that the records name is judged by the usual metrics. A second
start goes on where the first one stopped.
"""

import functools
import sys

from absl import flags

from ttt_jax import errors
from ttt_jax.cli import settings
from ttt_jax.evaluation import offline, suite_file, summary

_CHECKPOINT = flags.DEFINE_list(
  'checkpoint', None, 'Folders of runs; the others are compared with the first.', required=True
)
_SUITE = flags.DEFINE_string('suite', None, 'YAML file of tasks and metrics.')
_DATA = flags.DEFINE_string('data', '', 'Data sets of tasks that name none.')
_SPLIT = flags.DEFINE_string('split', '', "Their split; without a suite it is 'test'.")
_RECOGNISER = flags.DEFINE_string('recogniser', '', 'Who listens where a task names nobody.')
_OUT = flags.DEFINE_string(
  'out', None, 'Folder for results.json and report.html.', required=True
)


def main():
  """Reads the flags.

  Raises:
    UserError: there is neither a suite nor data.
  """
  if not (_SUITE.value or _DATA.value):
    raise errors.UserError('give --data=DATA, or --suite=FILE.yaml, or both')
  path = _SUITE.value or suite_file.STANDARD
  suite = suite_file.read(path, _DATA.value, _SPLIT.value, _RECOGNISER.value)
  command = ' '.join(sys.argv)
  results = offline.run(suite, _CHECKPOINT.value, _OUT.value, command=command)
  print(summary.table(results))


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
