"""Examples of what models said: which items are shown, and what of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ttt_jax import assets as assets_lib
from ttt_jax.evaluation import evaluate, items, judging, sounds, transcripts, voices
from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

_SPOKEN, _WRITTEN = 10, 12  # examples on a page, over all tasks
_REFERENCES = {voices.ORIGINAL: 'Original speech', voices.CODEC: 'Codec alone'}


def speech(judged: evaluate.Judged) -> markup.Html:
  """Players of some items of the tasks that judge speech."""
  tasks = [task for task in judged.tasks if task.task.spoken]
  if not tasks:
    return markup.Html('')
  about = element(
    'p',
    'Evenly spaced among the items: nobody picked them. In what was heard, ',
    element('del', 'struck-out'),
    ' words are missing and ',
    element('ins', 'underlined'),
    ' words should not be there. The sounds of an item share one scale of time.',
    class_='quiet',
  )
  assets = judged.candidates[0].assets
  chosen = [
    _card(judged, task, item, assets)
    for task in tasks
    for item in _some(judged, task, max(2, _SPOKEN // len(tasks)))
  ]
  return markup.join(about, *sounds.cards(chosen, assets.codec.sample_rate))


def texts(judged: evaluate.Judged) -> markup.Html:
  """What was written for some items of the tasks that judge text alone."""
  tasks = [task for task in judged.tasks if task.task.answered and not task.task.spoken]
  rows = [
    row
    for task in tasks
    for item in _some(judged, task, max(2, _WRITTEN // len(tasks)))
    for row in _rows(judged, task, item)
  ]
  if not rows:
    return markup.Html('')
  headings = ['Task', 'Should write', 'Model', 'Wrote', 'Mistakes']
  head = element('tr', *(element('th', text, scope='col') for text in headings))
  grid = element('table', element('thead', head), element('tbody', *rows), class_='words')
  return markup.scrolling('Table of what was written', grid)


def failures(judged: evaluate.Judged) -> markup.Html:
  """The items that failed, and why."""
  found = [
    (one['item'], name, one['checkpoint'] or 'reference', one['stage'], one['reason'])
    for name, task in judged.results['tasks'].items()
    for one in task['failures']
  ]
  if not found:
    return markup.Html('')
  headings = ('Item', 'Task', 'Whose', 'Stage', 'Reason')
  return markup.table(headings, found, 'Table of items that failed', 'words')


def _some(judged: evaluate.Judged, task: judging.Task, count: int) -> list[items.Item]:
  """Items that at least one model answered; of these it is known what is right."""
  told = [judged.answers[one.name][task.task.name] for one in judged.candidates]
  known = [item for item in task.items.chosen if any(item.name in each for each in told)]
  return items.spread(known, count)


def _card(
  judged: evaluate.Judged, task: judging.Task, item: items.Item, assets: assets_lib.Assets
) -> sounds.Card:
  reference = item.references(task.task.reference)[0]
  about = {'Question': str(item.about['question'])} if 'question' in item.about else {}
  about['Should say'] = reference
  shown = [
    sounds.Sound(name, wave, task.floors.get(voice, {}).get(item.name))
    for voice, name in _REFERENCES.items()
    if (wave := _sound(voices.floor, voice, assets, item)) is not None
  ]
  several = len(judged.candidates) > 1
  for name, answer, said in _told(judged, task, item):
    if (wave := _sound(voices.spoken, assets, answer)) is not None:
      shown.append(sounds.Sound(name if several else 'The model', wave, said['speech']))
    if written := said['text']:
      about[f'Wrote, {name}' if several else 'Wrote'] = written
    if not answer.complete:
      ended = 'by a limit, not by itself'
      about[f'Ended, {name}' if several else 'Ended'] = ended
  return sounds.Card(task.task.name, item.name, about, reference, shown)


def _sound(make: Callable[..., np.ndarray | None], *arguments) -> np.ndarray | None:
  try:
    return make(*arguments)
  except Exception:  # it was reported when it was to be heard
    return None


def _told(judged, task, item) -> Iterator[tuple[str, object, Mapping[str, str | None]]]:
  """Name, answer and texts of each model that answered the item."""
  for one in judged.candidates:
    answers = judged.answers[one.name][task.task.name]
    if item.name in answers:
      said = judged.outcomes[one.name][task.task.name].said
      found = {kind: said.get(kind, {}).get(item.name) for kind in ('text', 'speech')}
      yield one.name, answers[item.name], found


def _rows(judged, task: judging.Task, item: items.Item) -> Sequence[markup.Html]:
  reference = item.references(task.task.reference)[0]
  return [
    element(
      'tr',
      element('td', task.task.name),
      element('td', reference),
      element('td', name),
      element('td', transcripts.marked(reference, said['text'])),
      element('td', transcripts.score(reference, said['text'])),
    )
    for name, _, said in _told(judged, task, item)
  ]
