"""Judges a trained model on held-out records, and writes down what came of it."""

import json
import pathlib
import time

from data_pipelines import records
from ttt_jax import errors
from ttt_jax.evaluation import judge, likelihood, report
from ttt_jax.sampling import session as session_lib

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
  folder = pathlib.Path(out)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(f'cannot write to --out={out}: {error}') from error
  session = session_lib.Session.load(checkpoint)
  source = records.Source(data, split)
  started = time.monotonic()
  heard = judge.hear_all(session, source)
  results = judge.figures(heard)
  results |= likelihood.measure(
    session.model,
    session.params,
    [source[i].document for i in range(len(source))],
    session.assets.vocabulary,
    session.config.mask,
    session.config.objective,
  )
  seconds = more.pop('seconds', {}) | {'evaluate': round(time.monotonic() - started, 1)}
  results |= {'seconds': seconds, 'versions': report.versions(), **more}
  text = json.dumps(results, indent=1) + '\n'
  (folder / RESULTS).write_text(text, encoding='utf-8')
  report.write(folder / REPORT, results, heard, session, checkpoint, data, split)
  return results
