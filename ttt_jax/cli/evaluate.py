"""Judges a trained model on the held-out records of a data set.

ttt-evaluate --checkpoint=RUN --data=DATA --out=RESULTS
"""

import functools
import sys

from absl import flags

from ttt_jax.cli import settings
from ttt_jax.evaluation import evaluate, report

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
_DATA = flags.DEFINE_string('data', None, 'Data set of records.', required=True)
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the data set.')
_OUT = flags.DEFINE_string(
  'out', None, 'Folder for results.json and report.html.', required=True
)


def main():
  """Reads the flags."""
  results = evaluate.evaluate(
    _CHECKPOINT.value, _DATA.value, _SPLIT.value, _OUT.value, command=' '.join(sys.argv)
  )
  print(report.table(results))


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
