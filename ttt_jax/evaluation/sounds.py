"""Speech to listen to and to look at: of an item the reference and all models, side by side."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ttt_jax.evaluation import transcripts
from ttt_jax.pages import markup, sound
from ttt_jax.pages.markup import element

_BUDGET = 3_600_000  # bytes of samples that a report may hold
_LONGEST = 6.0  # seconds of a waveform that are kept: one that runs on dwarfs the others


class Sound(NamedTuple):
  """One waveform.

  Attributes:
    name: whose it is.
    wave: float32 [S].
    heard: what the listener makes of it; None where nobody listened.
  """

  name: str
  wave: np.ndarray
  heard: str | None


class Card(NamedTuple):
  """One item.

  Attributes:
    task: its task.
    item: its name.
    about: what else is known of it, for people.
    reference: what should be heard.
    sounds: reference speech and models.
  """

  task: str
  item: str
  about: Mapping[str, str]
  reference: str
  sounds: Sequence[Sound]


def cards(items: Sequence[Card], sample_rate: int) -> list[markup.Html]:
  """One card an item, all waveforms at one sample rate."""
  limit = _limit([len(s.wave) for item in items for s in item.sounds], sample_rate)
  return [_card(item, sample_rate, limit) for item in items]


def _limit(lengths: Sequence[int], sample_rate: int) -> int:
  """Samples after which each waveform is cut, so that all together keep to the budget."""
  limit = round(_LONGEST * sample_rate)
  while limit > 1 and 2 * sum(min(n, limit) for n in lengths) > _BUDGET:
    limit = math.floor(limit * 0.9)
  return limit


def _card(item: Card, sample_rate: int, limit: int) -> markup.Html:
  longest = max([1, *(min(len(one.wave), limit) for one in item.sounds)])
  parts = [_sound(item, one, sample_rate, limit, longest) for one in item.sounds]
  head = element(
    'header', element('span', item.task, class_='badge'), element('code', item.item)
  )
  return element(
    'article',
    head,
    markup.definitions(dict(item.about)),
    element('div', *parts, class_='sounds'),
    class_='card',
  )


def _sound(item: Card, one: Sound, sample_rate: int, limit: int, longest: int) -> markup.Html:
  """One waveform; `longest` samples fill the width."""
  if not one.wave.size:
    silent = element('p', 'no sound', class_='quiet')
    return element('section', element('h4', one.name), silent)
  seconds, shown = len(one.wave) / sample_rate, one.wave[:limit]
  length = f'{seconds:.1f} s'
  if len(shown) < len(one.wave):
    length = f'first {len(shown) / sample_rate:.1f} s of {length}'
  label = f'{one.name}: {item.item}, {length}'
  player = sound.player(shown, sample_rate, label, len(shown) / longest)
  title = element('h4', one.name, ' ', element('small', length))
  parts = [title, player]
  if one.heard is not None:
    marked = transcripts.marked(item.reference, one.heard)
    parts.append(element('p', 'Heard: ', marked, class_='said'))
    parts.append(element('p', transcripts.score(item.reference, one.heard)))
  return element('section', *parts)
