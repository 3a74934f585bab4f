"""Judges a trained model on the held-out records of a data set.

ttt-evaluate --checkpoint=RUN --data=DATA --out=RESULTS
"""

import functools
import json
import pathlib
import time

from absl import flags

from data_pipelines import records
from ttt_jax import errors
from ttt_jax.cli import settings
from ttt_jax.evaluation import judge, likelihood, report
from ttt_jax.sampling import session as session_lib

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
_DATA = flags.DEFINE_string('data', None, 'Data set of records.', required=True)
_SPLIT = flags.DEFINE_string('split', 'test', 'Split of the data set.')
_OUT = flags.DEFINE_string(
  'out', None, 'Folder for results.json and report.html.', required=True
)

RESULTS = 'results.json'
REPORT = 'report.html'


def evaluate(checkpoint: str, data: str, split: str, out: str, **more) -> dict:
  """Writes results.json and report.html into `out`; returns the results.

  Args:
    checkpoint: folder of a run.
    data: folder of a data set.
    split: of the data set.
    out: folder, which is made.
    **more: goes into the results: seconds of earlier stages, the command.
  """
  session = session_lib.Session.load(checkpoint)
  source = records.Source(data, split)
  started = time.monotonic()
  heard = judge.hear_all(session, source)
  results = judge.figures(heard)
  config = session.config
  results |= likelihood.measure(
    session.model,
    session.params,
    [source[i].document for i in range(len(source))],
    session.assets.vocabulary,
    config.mask,
    config.objective,
  )
  seconds = more.pop('seconds', {}) | {'evaluate': time.monotonic() - started}
  results |= {'seconds': seconds, 'versions': report.versions(), **more}
  folder = pathlib.Path(out)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder / REPORT, results, heard, session, checkpoint, data)
    text = json.dumps(results, indent=1) + '\n'
    (folder / RESULTS).write_text(text, encoding='utf-8')
  except OSError as error:
    raise errors.UserError(f'cannot write to --out={out}: {error}') from error
  return results


def main():
  """Reads the flags."""
  results = evaluate(_CHECKPOINT.value, _DATA.value, _SPLIT.value, _OUT.value)
  print(report.table(results))


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
