"""From what was said to figures: of each metric of a task, of each model, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ttt_jax.evaluation import bootstrap, items, suite, text_metrics

Counts = dict[str, np.ndarray]  # float64 [K] by item

_RATES = {  # figures of 'likelihood': what of `likelihood.Sums` they are made of
  'text_nats': slice(0, 2),
  'audio_bound': slice(2, 4),
}


class Outcome(NamedTuple):
  """What came of one model on one task.

  Attributes:
    said: texts by item, of 'text' and of 'speech'.
    sums: of likelihoods, by item.
    failures: items that could not be judged.
    cut_short: how many answers a limit ended.
  """

  said: Mapping[str, Mapping[str, str]]
  sums: Mapping[str, Sequence[float]]
  failures: Sequence[items.Failure]
  cut_short: int


class Task(NamedTuple):
  """One task, as it is judged.

  Attributes:
    task: of the suite.
    items: its records.
    measures: of its metrics of texts, by title.
    floors: what is heard of reference speech, by voice and item.
    failures: of those.
  """

  task: suite.Task
  items: items.Items
  measures: Mapping[str, text_metrics.Measure]
  floors: Mapping[str, Mapping[str, str]]
  failures: Sequence[items.Failure]


def figures(whole: suite.Suite, task: Task, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
  """The results of a task, JSON values.

  Args:
    whole: the suite, for the bootstrap.
    task: what was asked.
    outcomes: by the names of models, the first of which the others are compared with.
  """
  failed = {'': list(task.failures)} | {name: list(o.failures) for name, o in outcomes.items()}
  made = {}
  for metric in task.task.answered:
    measure = task.measures[metric.title]
    floors = task.floors if metric.of == 'speech' else {}
    by_model = {
      name: _counts(task, measure, outcome.said[metric.of], failed[name])
      for name, outcome in outcomes.items()
    }
    by_floor = {name: _counts(task, measure, said, []) for name, said in floors.items()}
    about = {'metric': metric.metric, 'of': metric.of, 'normaliser': metric.normaliser}
    made[metric.title] = about | _compared(whole, measure, by_model, by_floor)
  if task.task.likelihood:
    measure = text_metrics.Measure('lower', 'nats', lambda *_: None, text_metrics.ratio)
    for title, part in _RATES.items():
      by_model = {
        name: {key: np.array(sums[part]) for key, sums in outcome.sums.items() if sums[part][1]}
        for name, outcome in outcomes.items()
      }
      if any(by_model.values()):
        made[title] = {'metric': 'likelihood'} | _compared(whole, measure, by_model, {})
  total = len(task.items.chosen) + len(task.items.broken)
  return {
    'items': total,
    'figures': made,
    'cut_short': {name: outcome.cut_short for name, outcome in outcomes.items()},
    'failed': {name: len({failure.item for failure in failed[name]}) for name in outcomes},
    'failures': [
      failure._asdict() | {'checkpoint': name}
      for name, of_one in failed.items()
      for failure in of_one
    ],
  }


def _counts(
  task: Task,
  measure: text_metrics.Measure,
  said: Mapping[str, str],
  failures: list[items.Failure],
) -> Counts:
  out = {}
  for item in task.items.chosen:
    if item.name not in said:
      continue
    try:
      references = item.references(task.task.reference)
      out[item.name] = measure.counts(said[item.name], references)
    except ValueError as error:
      failures.append(items.Failure(item.name, 'judge', items.reason(error)))
  return out


def _compared(
  whole: suite.Suite,
  measure: text_metrics.Measure,
  by_model: Mapping[str, Counts],
  by_floor: Mapping[str, Counts],
) -> dict[str, Any]:
  """A figure of all models: its value, its interval, and how far it is from the first's."""
  out = {'better': measure.better, 'unit': measure.unit, 'checkpoints': {}}
  how = measure.figure, whole.resamples, whole.confidence, whole.seed
  first = next(iter(by_model.values()), {})
  for name, counts in by_model.items():
    entry = out['checkpoints'][name] = {'items': len(counts)}
    if counts:
      entry |= _interval(counts, *how)
    common = [key for key in counts if key in first]
    if counts is not first and common and whole.resamples:
      both = _array(counts, common), _array(first, common)
      entry['difference'] = bootstrap.difference(*both, *how)._asdict()
  for name, counts in by_floor.items():
    if counts:
      out[name] = measure.figure(_array(counts, counts).sum(0))
  return out


def _interval(counts: Counts, figure, resamples: int, *how) -> dict[str, float]:
  array = _array(counts, counts)
  if not resamples:
    return {'value': figure(array.sum(0))}
  return bootstrap.interval(array, figure, resamples, *how)._asdict()


def _array(counts: Counts, keys) -> np.ndarray:
  return np.array([counts[key] for key in keys], np.float64)
