"""Judges models by a suite, and writes down what came of it.

results.json   all figures
report.html    the same for people, with sounds
items/         answers and what was heard of them, item by item, so that a run that was
stopped goes on
"""

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import errors
from ttt_jax.evaluation import answering, hearing, judging, text_metrics, voices
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import items as items_lib
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.sampling import events

RESULTS = 'results.json'
REPORT = 'report.html'
ITEMS = 'items'


class EvaluationError(errors.UserError):
  """More of the items of a task failed than the suite puts up with."""


class Judged(NamedTuple):
  """All that pages want to know of an evaluation.

  Attributes:
    suite: by which models were judged.
    tasks: of the suite.
    candidates: the models, without their parameters.
    answers: of each model and task, by their names, the answers by item.
    outcomes: likewise, what came of them.
    results: the figures, as they are written.
  """

  suite: suite_lib.Suite
  tasks: Sequence[judging.Task]
  candidates: Sequence[candidate_lib.Candidate]
  answers: Mapping[str, Mapping[str, Mapping[str, events.Answer]]]
  outcomes: Mapping[str, Mapping[str, judging.Outcome]]
  results: dict[str, Any]


class Evaluation:
  """A suite whose data sets are open; judges any number of models."""

  def __init__(self, suite: suite_lib.Suite, kept: str | pathlib.Path):
    """Opens what the suite names.

    Args:
      suite: tasks and metrics.
      kept: folder of what is kept of items.

    Raises:
      UserError: a data set, a recogniser or the library of a metric is missing.
    """
    self.suite, self._kept = suite, pathlib.Path(kept)
    self._writes = jax.process_index() == 0
    self._tasks: list[tuple[judging.Task, list[records.Source], hearing.Listener | None]] = []
    opened: dict[tuple[str, str], records.Source] = {}
    for task in suite.tasks:
      for folder in task.data:
        if (folder, task.split) not in opened:
          opened[folder, task.split] = records.Source(folder, task.split)
      sources = [opened[folder, task.split] for folder in task.data]
      for source in sources:
        sources[0].assets.refuse_mismatch(source.fingerprints, str(source.directory))
      items = items_lib.collect(task, sources)
      if not items.chosen and (task.optional or not items.broken):
        continue
      measures = {metric.title: text_metrics.measure(metric) for metric in task.answered}
      listener = None
      if task.spoken and self._writes:
        listener = hearing.Listener(task, items, sources[0].assets, self._kept, self._writes)
      judged = judging.Task(task, items, measures, {}, ())
      self._tasks.append((judged, sources, listener))
    if not self._tasks:
      raise suite_lib.SuiteError('no task of the suite has a record in these data sets')

  def refuse_mismatch(self, assets: assets_lib.Assets, name: str) -> None:
    """Raises AssetError where a data set was made with other assets than `name` has."""
    for _, sources, _ in self._tasks:
      directory = sources[0].directory
      assets.refuse_mismatch(sources[0].fingerprints, f'{directory}, beside {name},')

  def judge(
    self, loaders: Sequence[Callable[[], candidate_lib.Candidate]], **more: Any
  ) -> Judged | None:
    """Judges models, one after the other.

    Args:
      loaders: each loads one; it is released when it has answered. With none of them, only
        what is heard of reference speech is told, and kept for later ones.
      **more: goes into the results: seconds of earlier stages, the command.

    Returns:
      What came of it; None in a process that only computes for another one.

    Raises:
      UserError: a model cannot be loaded, or does not fit a data set or a task.
    """
    started = time.monotonic()
    candidates, answers, outcomes = [], {}, {}
    for load in loaders:
      candidate = load()
      candidates.append(candidate)
      self.refuse_mismatch(candidate.assets, candidate.name)
      _meet()
      asked = [
        answering.Asked(
          task.task, self.suite.seed, candidate, task.items, self._kept, self._writes
        )
        for task, *_ in self._tasks
      ]
      _meet()
      for one in asked:
        one.ask()
      candidate.release()
      if self._writes:
        told, came = self._heard(candidate, asked)
        answers[candidate.name], outcomes[candidate.name] = told, came
    if not self._writes:
      return None
    tasks = [self._with_floors(task, listener) for task, _, listener in self._tasks]
    results = {
      'checkpoints': {
        one.name: {'folder': one.folder, 'step': one.step, 'parameters': one.count}
        for one in candidates
      },
      'tasks': {
        task.task.name: judging.figures(
          self.suite,
          task,
          {one.name: outcomes[one.name][task.task.name] for one in candidates},
        )
        for task in tasks
      },
      'suite': self.suite.to_dict(),
    }
    seconds = more.pop('seconds', {}) | {'evaluate': round(time.monotonic() - started, 1)}
    results |= {'seconds': seconds, **more}
    return Judged(self.suite, tasks, candidates, answers, outcomes, results)

  def _heard(self, candidate, asked) -> tuple[dict, dict]:
    """Answers and outcomes by task."""
    answers, outcomes = {}, {}
    assets = candidate.assets
    for (task, _, listener), one in zip(self._tasks, asked):
      told, texts = one.told(), {}
      failures = list(one.failures)
      texts['text'] = {name: voices.written(assets, answer) for name, answer in told.items()}
      if listener:
        texts['speech'], unheard = listener.answers(candidate.name, one.about, told)
        failures += unheard
      cut_short = sum(not answer.complete for answer in told.values())
      outcomes[task.task.name] = judging.Outcome(texts, one.read(), failures, cut_short)
      answers[task.task.name] = told
    return answers, outcomes

  def _with_floors(self, task: judging.Task, listener: hearing.Listener | None):
    if not listener:
      return task
    floors, failures = listener.floors()
    return task._replace(floors=floors, failures=failures)


def _meet() -> None:
  """Waits for the other processes, so that all of them read the same of what is kept."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('evaluation')


def too_many_failed(results: Mapping[str, Any]) -> str:
  """What is wrong where more failed than the suite puts up with; '' where it is not so."""
  tolerance = results['suite']['tolerance']
  for name, task in results['tasks'].items():
    for checkpoint, failed in task['failed'].items():
      if failed > tolerance * task['items']:
        first = next(f for f in task['failures'] if f['checkpoint'] == checkpoint)
        return (
          f'task {name!r}, checkpoint {checkpoint}: {failed} of {task["items"]} items failed, '
          f'and the suite puts up with {tolerance:.1%}; the first is '
          f'{first["item"]} ({first["stage"]}): {first["reason"]}'
        )
  return ''
