"""The figures of an evaluation as a table: of text for the console, of HTML for the report."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ttt_jax.evaluation import voices
from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

_NAMES = {
  'wer': 'word error rate',
  'cer': 'character error rate',
  'accuracy': 'accuracy',
  'bleu': 'BLEU',
  'chrf': 'chrF',
  'rouge_l': 'ROUGE-L',
  'text_nats': 'text, nats a token',
  'audio_bound': 'audio, nats a token at most',
}
_FLOORS = {voices.CODEC: 'codec alone', voices.ORIGINAL: 'original'}


class Line(NamedTuple):
  """One figure of one model.

  Attributes:
    task: its name.
    figure: its title, for people.
    about: what results say of it, with all models.
    checkpoint: name of the model.
    first: whether it is the first one.
  """

  task: str
  figure: str
  about: Mapping[str, Any]
  checkpoint: str
  first: bool

  @property
  def entry(self) -> Mapping[str, Any]:
    """The figure of this model."""
    return self.about['checkpoints'][self.checkpoint]

  def cells(self) -> dict[str, str]:
    """What stands in the columns, by their headings."""
    entry = self.entry
    out = {'checkpoint': self.checkpoint, 'value': written(self.about, entry.get('value'))}
    if 'low' in entry:
      out['interval'] = _range(self.about, entry['low'], entry['high'])
    if 'difference' in entry:
      apart = entry['difference']
      bounds = _range(self.about, apart['low'], apart['high'], sign=True)
      out['against the first'] = f'{written(self.about, apart["value"], sign=True)}, {bounds}'
      out['p'] = f'{apart["p"]:.3f}'
    for name, heading in _FLOORS.items():
      if name in self.about:
        out[heading] = written(self.about, self.about[name])
    out['items'] = str(entry['items'])
    return out


def lines(results: Mapping[str, Any]) -> Iterator[Line]:
  """All figures, of all models."""
  for task, about_task in results['tasks'].items():
    for title, about in about_task['figures'].items():
      name = _title(title, about)
      for number, checkpoint in enumerate(about['checkpoints']):
        yield Line(task, name, about, checkpoint, number == 0)


def _title(title: str, about: Mapping[str, Any]) -> str:
  plain = title.removeprefix('speech_') if about.get('of') == 'speech' else title
  name = _NAMES.get(plain, title)
  return f'{name}, as heard' if about.get('of') == 'speech' else name


def written(about: Mapping[str, Any], value: float | None, sign: bool = False) -> str:
  """A figure in its unit; a dash where there is none."""
  if value is None or value != value:
    return '–'
  plus = '+' if sign else ''
  if about['unit'] == 'share':
    return f'{100 * value:{plus}.1f} %'
  return f'{value:{plus}.{3 if about["unit"] == "nats" else 1}f}'


def _range(about: Mapping[str, Any], low: float, high: float, sign: bool = False) -> str:
  low, high = (written(about, value, sign).removesuffix(' %') for value in (low, high))
  return f'{low} to {high}'


def duration(seconds: float) -> str:
  """A length of time for people."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def more(results: Mapping[str, Any]) -> dict[str, str]:
  """What stands below the table: answers cut short, items that failed, and times."""
  out, several = {}, len(results['checkpoints']) > 1
  for name in results['checkpoints']:
    whose = f', {name}' if several else ''
    tasks = results['tasks'].values()
    cut, failed = (sum(task[key][name] for task in tasks) for key in ('cut_short', 'failed'))
    out[f'Cut short by a limit{whose}'] = f'{cut} answers'
    out[f'Failed{whose}'] = f'{failed} items'
  for stage, seconds in results.get('seconds', {}).items():
    out[f'Time to {stage}'] = duration(seconds)
  return out


def table(results: Mapping[str, Any]) -> str:
  """The results as aligned lines of text."""
  found = list(lines(results))
  rows = [{'task': f'{line.task}: {line.figure}'} | line.cells() for line in found]
  several = len(results['checkpoints']) > 1
  names = ['task', 'checkpoint', 'value', 'interval', 'against the first', 'p']
  names += [*_FLOORS.values(), 'items']
  shown = [
    name
    for name in names
    if any(name in row for row in rows) and (several or name != 'checkpoint')
  ]
  for row, line in zip(rows, found):
    if not line.first:
      row['task'] = ''
  headings = {name: name for name in shown} | {
    'task': '',
    'interval': f'{100 * results["suite"]["confidence"]:g} % interval',
  }
  whole = [headings, *rows]
  widths = {name: max(len(row.get(name, '')) for row in whole) for name in shown}
  out = []
  for row in whole if rows else []:
    cells = [
      row.get(name, '').ljust(widths[name])
      if name in ('task', 'checkpoint')
      else row.get(name, '').rjust(widths[name])
      for name in shown
    ]
    out.append('  '.join(cells).rstrip())
  facts = more(results)
  width = max(map(len, facts), default=0)
  out += ['', *(f'{name.ljust(width)}  {value}' for name, value in facts.items())]
  if results.get('note'):
    out += ['', f'Note: {results["note"]}']
  return '\n'.join(out).strip('\n')


def html(results: Mapping[str, Any]) -> markup.Html:
  """The results as a table with a picture of each line, and what stands below it."""
  several, body, parts = len(results['checkpoints']) > 1, [], []
  for line in lines(results):
    cells = line.cells()
    name = element(
      'th',
      f'{line.task}: {line.figure}',
      ' ',
      element('small', line.checkpoint if several else f'{line.about["better"]} is better'),
      scope='row',
    )
    columns = ['interval', *(['against the first', 'p'] if several else [])]
    columns += _FLOORS.values()
    body.append(
      element(
        'tr',
        name,
        element('td', element('strong', cells['value'])),
        *(element('td', cells.get(column, '–')) for column in columns),
        element('td', _bar(line)),
        element('td', cells['items']),
      )
    )
  if body:
    interval = f'{100 * results["suite"]["confidence"]:g} % interval'
    headings = ['Figure', 'Model', interval]
    headings += ['Against the first', 'p'] if several else []
    headings += ['Codec alone', 'Original', '0 to 100 %', 'Items']
    head = element('tr', *(element('th', text, scope='col') for text in headings))
    grid = element('table', element('thead', head), element('tbody', *body))
    parts += [markup.scrolling('Table of results', grid), _legend(several)]
  parts.append(markup.definitions(more(results)))
  return markup.join(*parts)


def _bar(line: Line) -> markup.Html:
  """The model's figure as a bar, its interval upon it, the floors as marks."""
  about, entry = line.about, line.entry
  scale = {'share': 1.0, 'points': 100.0}.get(about['unit'])
  if scale is None or 'value' not in entry:
    return markup.Html('')

  def at(value: float) -> float:
    return round(2 + 156 * min(1.0, max(0.0, value / scale)), 1)

  box = {'x': 2, 'y': 7, 'height': 8, 'rx': 4}
  parts = [
    element('rect', class_='rail', width=156, **box),
    element('rect', class_='level', width=round(at(entry['value']) - 2, 1), **box),
  ]
  if 'low' in entry:
    x1, x2 = at(entry['low']), at(entry['high'])
    parts.append(element('line', class_='mark interval', x1=x1, x2=x2, y1=11, y2=11))
  for name in _FLOORS:
    if name in about:
      x = at(about[name])
      parts.append(element('line', class_=f'mark {name}', x1=x, x2=x, y1=2, y2=20))
  return element('svg', *parts, viewBox='0 0 160 22', class_='bar', aria_hidden='true')


def _legend(several: bool) -> markup.Html:
  kinds = {
    'level': 'the model',
    'mark interval': 'interval',
    'mark codec': 'codec alone',
    'mark original': 'original speech',
  }
  text = (
    'Intervals are by the bootstrap over items. Codec alone and original are what the same '
    'listener makes of the reference speech: codec alone is what a model would score that had '
    'learned everything.'
  )
  if several:
    text += (
      ' Against the first: the difference from the first checkpoint on the same items, and how '
      'easily chance makes such a one (p).'
    )
  return markup.join(markup.swatches(kinds), element('p', text, class_='quiet'))
