"""Metrics of texts: what each answer adds to sums, and the figure that the sums make.

A figure is a function of sums over answers, so that it can be made again for any resample of
them (see `bootstrap`).
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ttt_jax import errors
from ttt_jax.evaluation import normalise, suite


class MetricError(errors.UserError):
  """A metric cannot be taken: its library is missing, or an answer has nothing to compare."""


class Measure(NamedTuple):
  """A metric, ready to be taken.

  Attributes:
    better: 'lower' or 'higher'.
    unit: 'share', a figure in percent; 'points', of 100; or 'nats'.
    counts: from what was said and the texts that would be right, float64 [K]; raises
      MetricError where there is nothing to compare with.
    figure: from float64 [K], sums of such counts, the figure; NaN where nothing was counted.
  """

  better: str
  unit: str
  counts: Callable[[str, Sequence[str]], np.ndarray]
  figure: Callable[[np.ndarray], float]


def ratio(sums: np.ndarray) -> float:
  """The figure of most: what was counted, over how much there was of it."""
  return float(sums[0] / sums[1]) if sums[1] else float('nan')


def measure(metric: suite.Metric) -> Measure:
  """How a metric of texts is taken.

  Raises:
    UserError: its library is not installed.
  """
  clean = normalise.normaliser(metric.normaliser)
  made = _MAKERS[metric.metric](metric)

  def counts(said: str, references: Sequence[str]) -> np.ndarray:
    right = [text for text in map(clean, references) if text]
    if not right:
      raise MetricError('the reference has no words (behind the normaliser)')
    return np.asarray(made.counts(clean(said), right), np.float64)

  return made._replace(counts=counts)


def _error_rate(process: str, metric: suite.Metric) -> Measure:
  """Edits over units of the reference; of several references, by the nearest one."""
  del metric
  jiwer = _library('jiwer', "pip install 'ttt_jax[speech]'")

  def counts(said, references):
    pairs = []
    for reference in references:
      out = getattr(jiwer, process)(reference, said)
      length = out.hits + out.substitutions + out.deletions
      pairs.append((out.substitutions + out.deletions + out.insertions, length))
    return min(pairs, key=lambda pair: pair[0] / pair[1])

  return Measure('lower', 'share', counts, ratio)


def _accuracy(metric: suite.Metric) -> Measure:
  """Whether the answer is right, as `metric.match` has it."""
  clean = normalise.normaliser(metric.normaliser)
  options = [clean(option).split() for option in metric.options]

  def right(said: list[str], reference: list[str]) -> bool:
    if metric.match == 'end':
      return said[max(0, len(said) - len(reference)) :] == reference
    if metric.match == 'contains':
      return _holds(said, reference)
    if metric.match == 'option':
      if reference not in options:
        raise MetricError(f'the reference {" ".join(reference)!r} is none of the options')
      return _named(said, options) == [reference]
    return said == reference

  def counts(said, references):
    return float(any(right(said.split(), text.split()) for text in references)), 1.0

  return Measure('higher', 'share', counts, ratio)


def _holds(words: list[str], part: list[str]) -> bool:
  places = range(len(words) - len(part) + 1)
  return any(words[place : place + len(part)] == part for place in places)


def _named(words: list[str], options: list[list[str]]) -> list[list[str]]:
  """The options that `words` name; one inside another, 'sad' in 'very sad', does not count."""
  found, place = [], 0
  longest_first = sorted(options, key=len, reverse=True)
  while place < len(words):
    here = (option for option in longest_first if words[place : place + len(option)] == option)
    option = next(here, None)
    if option and option not in found:
      found.append(option)
    place += len(option or [''])
  return found


def _bleu(metric: suite.Metric) -> Measure:
  """BLEU of the corpus (sacrebleu's, 13a tokens, exponential smoothing), 0 to 100."""
  del metric
  sacrebleu = _library('sacrebleu.metrics', normalise.EXTRA)
  bleu = sacrebleu.BLEU()

  def counts(said, references):
    score = bleu.corpus_score([said], [[reference] for reference in references])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]

  def figure(sums):
    whole = [int(number) for number in sums]
    if not whole[-1]:
      return float('nan')
    parts = whole[:4], whole[4:8], *whole[8:]
    return sacrebleu.BLEU.compute_bleu(*parts, smooth_method='exp').score

  return Measure('higher', 'points', counts, figure)


def _chrf(metric: suite.Metric) -> Measure:
  """Mean of the answers' chrF (sacrebleu's sentence score), 0 to 100."""
  del metric
  chrf = _library('sacrebleu.metrics', normalise.EXTRA).CHRF(eps_smoothing=False)

  def counts(said, references):
    return chrf.sentence_score(said, list(references)).score, 1.0

  return Measure('higher', 'points', counts, ratio)


def _rouge_l(metric: suite.Metric) -> Measure:
  """Mean of the answers' ROUGE-L F1 (rouge-score's), 0 to 100; by the best reference."""
  del metric
  rouge = _library('rouge_score.rouge_scorer', normalise.EXTRA).RougeScorer(['rougeL'])

  def counts(said, references):
    best = max(rouge.score(reference, said)['rougeL'].fmeasure for reference in references)
    return 100 * best, 1.0

  return Measure('higher', 'points', counts, ratio)


_MAKERS = {
  'wer': functools.partial(_error_rate, 'process_words'),
  'cer': functools.partial(_error_rate, 'process_characters'),
  'accuracy': _accuracy,
  'bleu': _bleu,
  'chrf': _chrf,
  'rouge_l': _rouge_l,
}


def _library(name: str, mend: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise MetricError(f'this metric needs {name.split(".")[0]}: {mend}') from error
