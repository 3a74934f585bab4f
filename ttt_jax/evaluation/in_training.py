"""Evaluation of a model while it is trained: the same suite, on the mesh of training.

evaluation/step-N.json  the results
evaluation/items/       answers, as `evaluate` keeps them; ttt-evaluate --out=RUN/evaluation
takes them from there, and makes a page of them
"""

import pathlib
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from data_pipelines.stream import mixture
from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import json_file
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import evaluate, report, suite_file
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.training import loop, metrics, saver

DIRECTORY = 'evaluation'


def judge(config: config_lib.Config, workdir: str | pathlib.Path) -> loop.Judge | None:
  """What `training.loop` asks for figures, if the settings want any.

  Figures are called 'evaluation/TASK/FIGURE'; 'evaluation/TASK/failed' counts items. Memory:
  where the model computes in bfloat16 there is a copy of the parameters in it while items are
  answered, in the place of the gradients of a step; in float32 there is none.

  Raises:
    UserError: the suite or what it names cannot be used with these settings.
  """
  if not config.evaluation.every:
    return None
  suite = suite_file.read(config.evaluation.suite)
  for task in suite.tasks:
    try:
      candidate_lib.sampling(config, task.sampling)
    except config_lib.ConfigError as error:
      raise suite_lib.SuiteError(
        f'{config.evaluation.suite}: task {task.name!r}: {error}'
      ) from error
  assets = mixture.open_all(config.data)[0].assets
  folder = pathlib.Path(workdir, DIRECTORY)
  evaluation = evaluate.Evaluation(suite, folder / evaluate.ITEMS)
  evaluation.refuse_mismatch(assets, 'the data set of training')
  return _InTraining(config, workdir, folder, evaluation)


class _InTraining:
  """Keeps what is compiled from one evaluation to the next."""

  def __init__(self, config, workdir, folder: pathlib.Path, evaluation: evaluate.Evaluation):
    self._config, self._workdir, self._folder = config, workdir, folder
    self._evaluation = evaluation
    self._candidate: candidate_lib.Candidate | None = None

  def __call__(
    self, assets: assets_lib.Assets, mesh: Mesh, step: int, params: Any
  ) -> dict[str, float]:
    if self._candidate:
      self._candidate.at(step, params)
    else:
      name = pathlib.Path(self._workdir).absolute().name
      self._candidate = candidate_lib.Candidate(
        name, str(self._workdir), step, self._config, assets, params, mesh
      )
    try:
      judged = self._evaluation.judge([lambda: self._candidate], versions=report.versions())
    except OSError as error:
      self._candidate.release()
      if jax.process_count() > 1:
        raise  # others would wait for this process
      return _lost(step, error)
    if not judged:
      return {}
    try:  # behind all that processes do together
      json_file.write(self._folder / f'step-{step}.json', judged.results)
    except OSError as error:
      return _lost(step, error)
    if wrong := evaluate.too_many_failed(judged.results):
      logging.error('evaluation at step %d: %s', step, wrong)
    return figures(judged.results)


def _lost(step: int, error: OSError) -> dict[str, float]:
  """No figures, where there was no room for them; else raises the error again."""
  if not saver.is_full(error):
    raise error
  logging.error('ALARM: the evaluation at step %d is lost: %s', step, error)
  return {}


def figures(results: dict[str, Any]) -> dict[str, float]:
  """The figures of the first checkpoint, by the names that reports of training have."""
  (name, *_) = results['checkpoints']
  out = {}
  for task, about in results['tasks'].items():
    for title, figure in about['figures'].items():
      if 'value' in (entry := figure['checkpoints'][name]):
        out[f'{metrics.JUDGED}{task}/{title}'] = entry['value']
    out[f'{metrics.JUDGED}{task}/failed'] = float(about['failed'][name])
  return out
