"""What a model makes of the items of a task: answers and likelihoods, kept as they come."""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ttt_jax import errors, progress
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import items as items_lib
from ttt_jax.evaluation import likelihood
from ttt_jax.evaluation import log as log_lib
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.sampling import events

_TOGETHER = 32  # documents whose likelihoods are taken together; the same ones on every start


class Asked:
  """One candidate and the items of one task.

  Attributes:
    about: all that answers depend on, JSON values.
    failures: items that could not be asked.
  """

  def __init__(
    self,
    task: suite_lib.Task,
    seed: int,
    candidate: candidate_lib.Candidate,
    items: items_lib.Items,
    folder: pathlib.Path,
    writes: bool,
  ):
    """Asks nothing yet.

    Args:
      task: what is asked.
      seed: of the suite.
      candidate: who is asked.
      items: of the task.
      folder: of what is kept.
      writes: whether this process writes there.

    Raises:
      SuiteError: the task's settings of decoding do not fit the candidate.
    """
    self._task, self._seed, self._candidate, self._writes = task, seed, candidate, writes
    self._items, self.failures = items.chosen, list(items.broken)
    try:
      self._sampling = candidate_lib.sampling(candidate.config, task.sampling)
    except errors.UserError as error:
      raise suite_lib.SuiteError(
        f'task {task.name!r}, checkpoint {candidate.name}: {error}'
      ) from error
    config = candidate.config.to_dict()
    about = {
      'checkpoint': candidate.fingerprint,
      'assets': candidate.assets.fingerprints,
      'model': config['model'],
      'mask': config['mask'],
      'data': items.fingerprint,
      'seed': seed,
    }
    self._answers = self._likelihoods = {}
    self._known: list[items_lib.Item] = []  # those of which it is known what is right
    if task.answered:
      # Of the prompts that are answered beside it, no answer depends.
      sampling = {k: v for k, v in vars(self._sampling).items() if k != 'batch'}
      self.about = about | {'sampling': sampling}
      self._answers = log_lib.Log(folder, f'{task.name}-answers', self.about, writes)
    if task.likelihood:
      objective = config['objective']
      about |= {name: objective[name] for name in ('restrict_classes', 'layout')}
      about['samples'] = task.likelihood.samples
      about['items'] = [item.name for item in self._items]  # of those that are read together
      self._likelihoods = log_lib.Log(folder, f'{task.name}-likelihood', about, writes)

  def ask(self) -> None:
    """Lets the candidate answer what it has not answered yet, and takes likelihoods."""
    if self._task.answered:
      self._have_answered()
    if self._task.likelihood:
      self._have_read()

  def told(self) -> dict[str, events.Answer]:
    """The answers by item; none to items of which nobody knows what is right."""
    found = [item.name for item in self._known if item.name in self._answers]
    return {
      name: events.Answer(np.array(self._answers[name][0], np.int32), self._answers[name][1])
      for name in found
    }

  def read(self) -> dict[str, likelihood.Sums]:
    """The likelihoods by item."""
    found = [item.name for item in self._items if item.name in self._likelihoods]
    return {name: likelihood.Sums(*self._likelihoods[name]) for name in found}

  def _have_answered(self) -> None:
    key = self._task.reference
    # Of all, since answers are kept under whatever key the suite had before.
    known = self._prepared(self._items, 'answer', lambda item: item.references(key))
    self._known = [item for item, _ in known]
    made = self._candidate.decoder(self._sampling)

    def prompt(item):
      tokens = item.prompt
      made.check(tokens, 'the prompt')
      return tokens

    items = [item for item in self._known if item.name not in self._answers]
    pairs = list(self._prepared(items, 'answer', prompt))
    if not pairs:
      return
    items, prompts = zip(*pairs)
    seeds = [item.seed(self._seed) for item in items]
    told = made.answer(prompts, seeds)
    for number, answer in self._progress(told, len(items), 'answer'):
      self._answers[items[number].name] = [answer.tokens.tolist(), answer.complete]

  def _have_read(self) -> None:
    scorer, samples = self._candidate.scorer, self._task.likelihood.samples

    def laid(item):
      return scorer.read(item.document, samples, item.seed(self._seed))

    ordered = sorted(self._items, key=lambda item: len(item.document.tokens))
    groups = [ordered[i : i + _TOGETHER] for i in range(0, len(ordered), _TOGETHER)]
    missing = [g for g in groups if any(item.name not in self._likelihoods for item in g)]
    for group in self._progress(missing, len(missing), 'likelihood'):
      pairs = list(self._prepared(group, 'likelihood', laid))
      sums = scorer.score(self._candidate.params, [read for _, read in pairs])
      for (item, _), found in zip(pairs, sums):
        self._likelihoods[item.name] = list(found)

  def _prepared(
    self, items: Sequence[items_lib.Item], stage: str, prepare: Callable[[Any], Any]
  ) -> Iterable[tuple[items_lib.Item, Any]]:
    """Items and what `prepare` makes of them; those that it cannot take are noted."""
    for item in items:
      try:
        yield item, prepare(item)
      except Exception as error:  # whatever is wrong with the record
        self.failures.append(items_lib.Failure(item.name, stage, items_lib.reason(error)))

  def _progress(self, what: Iterable[Any], total: int, name: str) -> Iterable[Any]:
    title = f'{self._candidate.name}: {self._task.name}, {name}'
    quiet = not self._writes
    return progress.Bar(what, total=total, desc=title, unit='', leave=False, disable=quiet)
