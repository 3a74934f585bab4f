"""A picture of one packed row of training: who sees whom, and what each position is."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ttt_jax import batch as batch_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

_TONES = 4  # colours of documents, one after the other

_INPUTS = {
  'text': 'text',
  'prompt': 'audio of the prompt',
  'response': 'audio of the response',
  'masked': 'masked',
}
_TARGETS = {'text-target': 'predicts the next text', 'audio-target': 'predicts its own audio'}


class Classes(NamedTuple):
  """What each position of a row is; arrays of str [L], '' for padding or no target.

  Attributes:
    inputs: a key of text, prompt, response, masked.
    targets: text-target or audio-target.
  """

  inputs: np.ndarray
  targets: np.ndarray


def classes(row: batch_lib.Batch, vocabulary: vocabulary_lib.Vocabulary) -> Classes:
  """Names the positions of `row`, whose arrays are [L]."""
  real = row.visible > 0
  inputs = np.where(real, 'text', '').astype('U12')
  for start, end in vocabulary.spans(row.inputs):
    prompt = row.inputs[end - 1] == vocabulary.end_prompt
    inputs[start:end] = 'prompt' if prompt else 'response'
  inputs[real & (row.inputs == vocabulary.mask)] = 'masked'
  audio = vocabulary.is_audio(row.targets)
  targets = np.where(audio, 'audio-target', 'text-target')
  return Classes(inputs, np.where(row.weights > 0, targets, ''))


def picture(row: batch_lib.Batch, vocabulary: vocabulary_lib.Vocabulary) -> markup.Html:
  """Draws a row, whose arrays are [L], as a figure with its legend."""
  length = len(row.inputs)
  named = classes(row, vocabulary)
  size = max(6, round(length * 0.035))  # of a strip
  gap = max(2, size // 3)
  edge = 3 * (size + gap)
  parts = _square(row, edge, size + gap)
  columns = (_noise(row), list(_runs(named.targets)), list(_runs(named.inputs)))
  for number, (name, runs) in enumerate(zip(('noise', 'target', 'input'), columns)):
    x = number * (size + gap)
    parts += [
      _rect(kind, x, size + gap + start, size, end - start, hint, opacity)
      for start, end, kind, hint, opacity in runs
    ]
    at = f'translate({x + size * 0.7:.1f} {length + 2 * size + gap}) rotate(90)'
    parts.append(element('text', name, transform=at, font_size=round(size * 0.9)))
  parts += [
    _rect(kind, edge + start, 0, end - start, size, hint, opacity)
    for start, end, kind, hint, opacity in _runs(named.inputs)
  ]
  box = f'0 0 {edge + length} {length + 5 * size + gap}'
  label = (
    f'Attention mask of a row of {length} positions holding {len(batch_lib.documents(row))} '
    'documents'
  )
  drawing = element('svg', *parts, viewBox=box, role='img', aria_label=label, class_='mask')
  return element('figure', markup.scrolling('Picture of the mask', drawing), _legend())


def _legend() -> markup.Html:
  return element(
    'figcaption',
    element(
      'p',
      'Each line of the square is a position that looks, each column one that it may see; '
      'a colour for each document. Text sees what came before it. An audio token sees its '
      'whole group at once: the strong colour is what it sees ',
      element('em', 'ahead'),
      ' of itself. The strips show each position as the model is given it (input), what it '
      'must predict (target), and with which probability its audio was masked (noise).',
    ),
    markup.swatches({'tone-0 past': 'seen, before', 'tone-0 ahead': 'seen, ahead'} | _INPUTS),
    markup.swatches(_TARGETS | {'noise': 'noise: the stronger, the more is masked'}),
  )


def _square(row: batch_lib.Batch, left: int, top: int) -> list[markup.Html]:
  """What is seen: two paths a document, made of one rectangle a line."""
  parts, length = [], len(row.inputs)
  firsts, lasts = (e.reshape(length, -1).tolist() for e in (row.kv_start, row.kv_end))
  for number, (start, end) in enumerate(batch_lib.documents(row)):
    past, ahead = [], []
    for query in range(start, end):
      middle, y = query + 1, top + query
      for first, last in zip(firsts[query], lasts[query]):
        past += _line(left, y, first, min(last, middle))
        ahead += _line(left, y, max(first, middle), last)
    hint = element('title', f'document {number + 1}: positions {start} to {end - 1}')
    tone = f'tone-{number % _TONES}'
    parts.append(element('path', hint, class_=f'{tone} past', d=''.join(past)))
    parts.append(element('path', hint, class_=f'{tone} ahead', d=''.join(ahead)))
  return parts


def _line(left: int, y: int, first: int, last: int) -> list[str]:
  """A rectangle one high, if it holds anything."""
  return [f'M{left + first} {y}h{last - first}v1h{first - last}z'] if first < last else []


_Run = tuple[int, int, str, str, float | None]  # start, end, class, hint, opacity


def _runs(kinds: np.ndarray) -> Iterator[_Run]:
  """Runs of equal classes; those without a class are left out."""
  cuts = [0, *(np.flatnonzero(kinds[1:] != kinds[:-1]) + 1).tolist(), len(kinds)]
  hints = _INPUTS | _TARGETS
  for start, end in zip(cuts, cuts[1:]):
    if kind := str(kinds[start]):
      yield start, end, kind, hints[kind], None


def _noise(row: batch_lib.Batch) -> list[_Run]:
  """For each level of a document, from the first to the last token masked with it."""
  out = []
  for start, end in batch_lib.documents(row):
    for level in np.unique(row.noise[start:end][row.noise[start:end] > 0]):
      at = np.flatnonzero(row.noise[start:end] == level) + start
      hint = f'masked with probability {level:.2f}'
      shade = round(0.1 + 0.9 * float(level), 2)
      out.append((int(at[0]), int(at[-1]) + 1, 'noise', hint, shade))
  return sorted(out)


def _rect(
  kind: str, x: float, y: float, width: float, height: float, hint: str, opacity: float | None
) -> markup.Html:
  return element(
    'rect',
    element('title', hint),
    class_=kind,
    x=x,
    y=y,
    width=width,
    height=height,
    fill_opacity=opacity,
  )
