"""Evaluates checkpoints on disk, into a folder of results."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from ttt_jax import errors, json_file
from ttt_jax.evaluation import candidate, evaluate, report
from ttt_jax.evaluation import suite as suite_lib


def run(suite: suite_lib.Suite, checkpoints: Sequence[str], out: str, **more: Any) -> dict:
  """Judges the latest checkpoints of runs, and writes results.json and report.html.

  What was answered and heard before, and depends on the same things, is taken from `out`.

  Args:
    suite: tasks and metrics.
    checkpoints: folders of runs; the first one is what the others are compared with.
    out: folder, which is made.
    **more: goes into the results: seconds of earlier stages, the command.

  Returns:
    The results.

  Raises:
    EvaluationError: too many items failed; all is written before.
    UserError: a checkpoint, a data set or the folder cannot be used.
  """
  loaders = [
    functools.partial(candidate.Candidate.load, folder, name)
    for folder, name in zip(checkpoints, names(checkpoints))
  ]
  folder = pathlib.Path(out)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(f'cannot write to --out={out}: {error}') from error
  evaluation = evaluate.Evaluation(suite, folder / evaluate.ITEMS)
  judged = evaluation.judge(loaders, versions=report.versions(), **more)
  write(judged, folder)
  if wrong := evaluate.too_many_failed(judged.results):
    raise evaluate.EvaluationError(f'{wrong}; all that failed: {folder / evaluate.RESULTS}')
  return judged.results


def write(judged: evaluate.Judged, folder: pathlib.Path) -> None:
  """Writes report.html, and then results.json, into `folder`, which there is."""
  report.write(folder / evaluate.REPORT, judged)
  json_file.write(folder / evaluate.RESULTS, judged.results)  # last: where it is, all is there


def names(checkpoints: Sequence[str]) -> list[str]:
  """Short names of folders: their last parts, or as many as it takes to tell them apart.

  Raises:
    UserError: there is none, or one is there twice.
  """
  parts = [pathlib.Path(folder).absolute().parts for folder in checkpoints]
  if not parts or len(set(parts)) < len(parts):
    raise errors.UserError('name one checkpoint or several, each of them once')
  for count in range(1, max(map(len, parts)) + 1):
    short = ['/'.join(part[-count:]) for part in parts]
    if len(set(short)) == len(short):
      return short
  raise AssertionError('paths that differ have parts that differ')
