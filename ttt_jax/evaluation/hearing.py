"""What an independent listener makes of answers, and of the speech that they are held to.

Every figure of speech stands beside its floors: what the same listener makes of the original
recording, and of the reference after the codec alone.
"""

import hashlib
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from ttt_jax import assets as assets_lib
from ttt_jax import errors, progress
from ttt_jax.evaluation import items as items_lib
from ttt_jax.evaluation import log as log_lib
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.evaluation import voices
from ttt_jax.evaluation.recognisers import kinds
from ttt_jax.sampling import events

Heard = dict[str, str]


class Listener:
  """Listens for one task; it knows what should be said in each kind of its records."""

  def __init__(
    self,
    task: suite_lib.Task,
    items: items_lib.Items,
    assets: assets_lib.Assets,
    folder: pathlib.Path,
    writes: bool,
  ):
    """Gets ready.

    Args:
      task: whose answers are heard.
      items: of the task.
      assets: of its data.
      folder: of what is kept.
      writes: whether this process writes there.

    Raises:
      UserError: the recogniser cannot be had, or the codec makes no sound.
    """
    self._task, self._assets = task, assets
    self._items = [item for item in items.chosen if _said(item, task.reference)]
    self._folder, self._writes = folder, writes
    try:
      assets.codec.require('decode')
      texts = _texts(self._items, task.reference)
      self._by_kind = {kind: kinds.make(task.recogniser, said) for kind, said in texts.items()}
    except errors.UserError as error:
      raise suite_lib.SuiteError(f'task {task.name!r} judges speech: {error}') from error
    words = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()
    self._about = {
      'recogniser': task.recogniser,
      'fingerprints': {kind: each.fingerprint for kind, each in self._by_kind.items()},
      'texts': words,
      'codec': assets.codec.fingerprint,
      'data': items.fingerprint,
    }

  def floors(self) -> tuple[dict[str, Heard], list[items_lib.Failure]]:
    """What is heard of reference speech, by voice and item; and what could not be."""
    out, failures = {}, []
    for voice in voices.FLOORS:
      # Tasks that ask the same in other ways share what is heard of their references.
      log = log_lib.Log(self._folder, voice, self._about | {'voice': voice}, self._writes)

      def wave(item, voice=voice):
        return voices.floor(voice, self._assets, item)

      out[voice] = self._heard(log, self._items, wave, voice, failures)
    return out, failures

  def answers(
    self,
    name: str,
    about: dict,
    told: dict[str, events.Answer],
  ) -> tuple[Heard, list[items_lib.Failure]]:
    """What is heard of a model's answers, by item; and what could not be.

    Args:
      name: of the model.
      about: all that the answers depend on.
      told: answers by item.
    """
    about = self._about | {'answers': about}
    log = log_lib.Log(self._folder, f'{self._task.name}-heard', about, self._writes)
    failures, items = [], [item for item in self._items if item.name in told]

    def wave(item):
      return voices.spoken(self._assets, told[item.name])

    return self._heard(log, items, wave, name, failures), failures

  def _heard(
    self,
    log: log_lib.Log,
    items: Sequence[items_lib.Item],
    wave: Callable[[items_lib.Item], np.ndarray | None],
    name: str,
    failures: list[items_lib.Failure],
  ) -> Heard:
    out, rate = {}, self._assets.codec.sample_rate
    title = f'{name}: {self._task.name}, listen'
    for item in progress.Bar(items, desc=title, unit='', leave=False):
      try:
        if item.name not in log:
          sound = wave(item)
          if sound is None:
            continue
          log[item.name] = self._by_kind[_kind(item)].hear(sound, rate)
        out[item.name] = log[item.name]
      except Exception as error:  # whatever a codec or a recogniser does wrong
        failures.append(items_lib.Failure(item.name, 'listen', items_lib.reason(error)))
    return out


def _kind(item: items_lib.Item) -> str:
  return str(item.about.get('kind', ''))


def _said(item: items_lib.Item, key: str) -> list[str]:
  """What should be said; nothing where the record does not tell, as is reported elsewhere."""
  try:
    return item.references(key)
  except ValueError:
    return []


def _texts(chosen: Sequence[items_lib.Item], key: str) -> dict[str, list[str]]:
  """All that should be said, by kind; each once, in order."""
  texts: dict[str, set[str]] = {}
  for item in chosen:
    texts.setdefault(_kind(item), set()).update(_said(item, key))
  return {kind: sorted(said) for kind, said in texts.items()}
