"""Speech to listen to and to look at: players, spectrograms and transcripts."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ttt_jax import assets as assets_lib
from ttt_jax.evaluation import judge, transcripts
from ttt_jax.pages import markup, sound
from ttt_jax.pages.markup import element

_BUDGET = 3_600_000  # bytes of samples that a report may hold
_LONGEST = 6.0  # seconds of a waveform that are kept: one that runs on dwarfs the others


def spread(items: Sequence[judge.Heard], count: int) -> list[judge.Heard]:
  """Up to `count` of the items, evenly spaced: nobody chose them."""
  count = min(count, len(items))
  return [items[i * len(items) // count] for i in range(count)]


def cards(
  items: Sequence[judge.Heard], sample_rate: int, questions: Mapping[str, str]
) -> list[markup.Html]:
  """One card an item.

  Args:
    items: what is shown.
    sample_rate: of all their waveforms.
    questions: for keys of items that answer one, its text.
  """
  waves = [w for item in items for w in (item.original, item.codec, item.wave)]
  limit = _limit([len(w) for w in waves], sample_rate)
  return [_card(item, sample_rate, limit, questions.get(item.key)) for item in items]


def _limit(lengths: Sequence[int], sample_rate: int) -> int:
  """Samples after which each waveform is cut, so that all together keep to the budget."""
  limit = round(_LONGEST * sample_rate)
  while limit > 1 and 2 * sum(min(n, limit) for n in lengths) > _BUDGET:
    limit = math.floor(limit * 0.9)
  return limit


def _card(item: judge.Heard, sample_rate: int, limit: int, question: str | None) -> markup.Html:
  answers = item.task == assets_lib.ANSWER
  about = {}
  if question:
    about['Question'] = question
  about['Should say'] = item.reference
  if answers:
    about['Wrote'] = item.text
  if not item.complete:
    about['Ended'] = 'by a limit, not by itself'
  sounds = (
    ('Original speech', item.original, item.heard_original),
    ('Codec alone', item.codec, item.heard_codec),
    ('The model', item.wave, item.heard),
  )
  longest = max(1, *(min(len(samples), limit) for _, samples, _ in sounds))
  parts = [
    _sound(
      f'{name}: {item.key}', name, samples, heard, item.reference, sample_rate, limit, longest
    )
    for name, samples, heard in sounds
  ]
  head = element(
    'header',
    element('span', 'answer' if answers else 'speak', class_='badge'),
    element('code', item.key),
  )
  return element(
    'article',
    head,
    markup.definitions(about),
    element('div', *parts, class_='sounds'),
    class_='card',
  )


def _sound(
  label: str,
  name: str,
  samples: np.ndarray,
  heard: str,
  reference: str,
  sample_rate: int,
  limit: int,
  longest: int,
) -> markup.Html:
  """One waveform; `longest` samples fill the width."""
  if not samples.size:
    silent = element('p', 'no sound', class_='quiet')
    return element('section', element('h4', name), silent)
  seconds, shown = len(samples) / sample_rate, samples[:limit]
  length = f'{seconds:.1f} s'
  if len(shown) < len(samples):
    length = f'first {len(shown) / sample_rate:.1f} s of {length}'
  player = sound.player(shown, sample_rate, f'{label}, {length}', len(shown) / longest)
  said = element('p', 'Heard: ', transcripts.marked(reference, heard), class_='said')
  title = element('h4', name, ' ', element('small', length))
  verdict = element('p', transcripts.score(reference, heard))
  return element('section', title, player, said, verdict)
