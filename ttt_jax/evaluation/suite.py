"""A suite: which tasks a model is judged on, and by which metrics."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ttt_jax import errors

OF_TEXT = ('wer', 'cer', 'accuracy', 'bleu', 'chrf', 'rouge_l')
LIKELIHOOD = 'likelihood'
NORMALISERS = ('none', 'basic', 'english')
MATCHES = ('exact', 'end', 'contains', 'option')


class SuiteError(errors.UserError):
  """A suite's file cannot be used; names the file and the key."""


@dataclasses.dataclass(frozen=True)
class Metric:
  """One way to judge the answers of a task.

  Attributes:
    metric: one of `OF_TEXT`, or 'likelihood'.
    of: 'text', what the answer writes, or 'speech', what a recogniser hears in its audio.
    normaliser: what is done to texts before they are compared.
    match: of 'accuracy': the answer is the reference ('exact'), ends in it ('end'), holds it
      ('contains'), or names it and no other of the `options` ('option').
    options: of the match 'option'.
    samples: of 'likelihood': draws of masks for each span of audio.
    name: of the figure; '' stands for one made of `metric` and `of`.
  """

  metric: str
  of: str = 'text'
  normaliser: str = 'none'
  match: str = 'exact'
  options: tuple[str, ...] = ()
  samples: int = 4
  name: str = ''

  @property
  def title(self) -> str:
    """The name of the figure."""
    return self.name or (f'speech_{self.metric}' if self.of == 'speech' else self.metric)


@dataclasses.dataclass(frozen=True)
class Task:
  """Some records, and how a model is judged on them.

  Attributes:
    name: unique in its suite; letters, digits, '.', '-' and '_'.
    data: folders of data sets.
    split: of them.
    where: which records: values, or lists of values, that keys of their `about` have.
    limit: so many of these at most, evenly spaced; 0: all.
    reference: key of `about` under which the right answer stands.
    sampling: settings of decoding that are not those of the run.
    recogniser: of what is said, 'kind' or 'kind:argument'.
    metrics: one or more.
    optional: whether the task is left out where there are no such records.
  """

  name: str
  data: tuple[str, ...]
  metrics: tuple[Metric, ...]
  split: str = 'test'
  where: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  limit: int = 0
  reference: str = 'text'
  sampling: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  recogniser: str = 'pocketsphinx'
  optional: bool = False

  @property
  def answered(self) -> list[Metric]:
    """The metrics that judge answers."""
    return [metric for metric in self.metrics if metric.metric != LIKELIHOOD]

  @property
  def likelihood(self) -> Metric | None:
    """The metric that judges the records' own tokens."""
    return next((metric for metric in self.metrics if metric.metric == LIKELIHOOD), None)

  @property
  def spoken(self) -> bool:
    """Whether what is said is judged."""
    return any(metric.of == 'speech' for metric in self.answered)


@dataclasses.dataclass(frozen=True)
class Suite:
  """Tasks, and how their figures are made.

  Attributes:
    tasks: one or more.
    seed: of drawing, of masks and of resamples.
    resamples: of the bootstrap; 0: no intervals.
    confidence: that an interval holds what the figure would be on all such items.
    tolerance: share of the items of a task that may fail before all of it is an error.
  """

  tasks: tuple[Task, ...]
  seed: int = 0
  resamples: int = 1000
  confidence: float = 0.95
  tolerance: float = 0.05

  def to_dict(self) -> dict[str, Any]:
    """Plain nested values."""
    return dataclasses.asdict(self)
