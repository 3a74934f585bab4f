"""The figures of a data set as text for the console, and as HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

from ttt_jax.pages import bars, markup, plots
from ttt_jax.pages.markup import element

Figures = Mapping[str, Any]

_KINDS = {
  'records': 'text-target',
  'prompt spans': 'prompt',
  'response spans': 'response',
  'text runs': 'text',
}
_NAMES = 40  # of tasks, scripts and reasons that are shown
_COLUMNS = ['Records', 'Tokens', 'Text', 'Audio', 'Targets', 'Prompt audio', 'Response audio']


def text(figures: Figures) -> str:
  """What is worth a look in a console: counts by task and script, and a line for the rest."""
  parts = [
    _aligned(('', *_COLUMNS), _tasks(figures)),
    _aligned(('script', 'records', 'letters'), _scripts(figures)),
  ]
  facts = summary(figures)
  width = max(map(len, facts))
  parts.append('\n'.join(f'{name.ljust(width)}  {value}' for name, value in facts.items()))
  return markup.printable('\n\n'.join(part for part in parts if part))


def summary(figures: Figures) -> dict[str, str]:
  """A line for each of the other figures."""
  total, codes, copies = figures['total'], figures['codes'], figures['duplicates']
  length = figures['lengths']['records']
  out = {}
  if length:
    out['Tokens of a record'] = (
      f'{length["least"]:,} to {length["most"]:,}, half up to {length["median"]:,}, '
      f'90 % up to {length["p90"]:,}'
    )
    out['Targets'] = f'{percent(total["targets"], total["tokens"])} of tokens'
  out[f'Longer than a row of {figures["row_length"]:,}'] = (
    f'{figures["too_long"]:,} records ({percent(figures["too_long"], total["records"])})'
  )
  out['Codes in use'] = (
    f'{codes["used"]:,} of {codes["size"]:,} ({percent(codes["used"], codes["size"])}), '
    f'perplexity {codes["perplexity"]:,.1f}'
  )
  out['Copies'] = (
    f'{copies["surplus"]:,} records repeat another'
    if copies['surplus']
    else 'none: no two records are equal'
  )
  out['Same text, other audio'] = (
    f'{copies["readings_of_those"]:,} records of {copies["texts_of_several_readings"]:,} texts'
  )
  if figures['unsound']['records']:
    out['Unsound'] = f'{figures["unsound"]["records"]:,} records, counted nowhere else'
  if figures['quarantine'] is not None:
    out['In quarantine'] = f'{figures["quarantine"]["rejected"]:,} rejected when it was made'
  if rows := figures['rows']:
    out['Fill of rows'] = (
      f'{100 * rows["fill"]:.1f} % ({rows["rows"]} rows of {rows["row_length"]:,}, '
      f'{rows["documents"] / rows["rows"]:.1f} documents each)'
    )
  return out


def percent(part: float, whole: float) -> str:
  """A part in percent."""
  return f'{100 * part / whole:.3g} %' if whole else '–'


def _sound(counts: Figures, kind: str) -> str:
  hours = counts[f'{kind}_hours']
  if hours is None:
    return f'{counts[f"{kind}_frames"]:,} frames'
  if not hours:
    return '–'
  return f'{hours:,.0f} h' if hours >= 100 else f'{hours:.3g} h'


def _tasks(figures: Figures) -> list[tuple[str, ...]]:
  named = list(figures['tasks'].items())
  lines = [*named[:_NAMES], ('all', figures['total'])]
  return [
    (
      name,
      *(f'{counts[key]:,}' for key in ('records', 'tokens', 'text', 'audio')),
      percent(counts['targets'], counts['tokens']),
      _sound(counts, 'prompt'),
      _sound(counts, 'response'),
    )
    for name, counts in lines
  ]


def _scripts(figures: Figures) -> list[tuple[str, ...]]:
  found = list(figures['scripts'].items())[:_NAMES]
  return [(name, f'{c["records"]:,}', f'{c["letters"]:,}') for name, c in found]


def _aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Columns, the first to the left and the others to the right; '' if there are no rows."""
  if not rows:
    return ''
  lines = [headings, *rows]
  widths = [max(map(len, column)) for column in zip(*lines)]
  out = []
  for first, *cells in lines:
    padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:])]
    out.append('  '.join([first.ljust(widths[0]), *padded]))
  return '\n'.join(out)


def counts(figures: Figures) -> markup.Html:
  """By task, and by script."""
  parts = [markup.table(('Task', *_COLUMNS), _tasks(figures), 'Counts by task')]
  if len(figures['tasks']) > _NAMES:
    parts.append(note(f'{len(figures["tasks"]) - _NAMES:,} more tasks are left out.'))
  if figures['frame_rate'] is None:
    parts.append(note('The codec is not here to tell how long a frame is.'))
  if scripts := _scripts(figures):
    headings = ('Script', 'Records', 'Letters')
    parts.append(element('h3', 'Scripts'))
    parts.append(markup.table(headings, scripts, 'Counts by script'))
    parts.append(
      note(
        'Of what users and assistants say, without the instructions of system turns. '
        'A record may be written in several scripts.'
      )
    )
  return markup.join(*parts)


def lengths(figures: Figures) -> markup.Html:
  """Histograms, what does not fit a row, and the longest and the shortest records."""
  charts, rows = [], []
  for name, found in figures['lengths'].items():
    if found is None:
      continue
    title = f'Length of {name}'
    charts.append(
      bars.histogram(found['bins'], title=title, x_label='tokens', kind=_KINDS[name])
    )
    figures_of = ('count', 'least', 'median', 'mean', 'p90', 'p99', 'most')
    rows.append((name, *(f'{found[key]:,.0f}' for key in figures_of)))
  headings = ('Tokens', 'Count', 'Least', 'Median', 'Mean', '90 %', '99 %', 'Most')
  total = figures['total']['records']
  fits = [
    (f'{int(length):,}', f'{count:,}', percent(count, total))
    for length, count in figures['too_long_for'].items()
  ]
  ends = [
    (element('code', element('bdi', shortened(item['key']))), f'{item["tokens"]:,}')
    for item in [*figures['longest'], *reversed(figures['shortest'])]
  ]
  few = len(figures['longest']) == total
  return markup.join(
    element('div', *charts, class_='charts'),
    markup.table(headings, rows, 'Lengths'),
    element(
      'div',
      element(
        'section',
        element('h3', 'Too long for a row'),
        markup.table(('Row', 'Records', 'Share'), fits, 'Records that do not fit a row'),
      ),
      element(
        'section',
        element('h3', 'All records' if few else 'The longest and the shortest'),
        markup.table(('Key', 'Tokens'), ends[: total if few else None], 'Extremes'),
      ),
      class_='pair',
    ),
  )


def codes(figures: Figures) -> markup.Html:
  """How the codebook is used."""
  found = figures['codes']
  if not found['used']:
    return note('There is no audio.')
  facts = {
    'Codes in use': f'{found["used"]:,} of {found["size"]:,}',
    'Share of the codebook': percent(found['used'], found['size']),
    'Entropy': f'{found["entropy_bits"]:.2f} bits',
    'Perplexity': f'{found["perplexity"]:,.1f} codes',
  }
  whole = found['occurrences']
  points = [(rank, n / whole) for rank, n in enumerate(found['sorted'], 1)]
  chart = plots.line_chart(
    points,
    title='Share of each code',
    x_label='rank of the code',
    kind='prompt',
    percent=True,
    reference=('if all were alike', 1 / found['size']),
  )
  both = []
  for name, ranked in (('The most frequent', found['most']), ('The least', found['least'])):
    rows = [
      (str(item['code']), f'{item["count"]:,}', percent(item['count'], whole))
      for item in ranked
    ]
    table = markup.table(('Code', 'Count', 'Share'), rows, f'{name} codes')
    both.append(element('section', element('h3', name), table))
  return markup.join(
    markup.definitions(facts),
    element('div', element('div', chart), *both, class_='pair'),
  )


def copies(figures: Figures) -> markup.Html:
  """Records that are equal."""
  found = figures['duplicates']
  several = (
    f'{found["readings_of_those"]:,} records share their text with another, and not their '
    f'audio: {found["texts_of_several_readings"]:,} texts, read in several ways.'
  )
  if not found['groups']:
    return element('p', f'No two records are equal, token by token. {several}')
  first = (
    f'{found["records"]:,} records fall into {found["groups"]:,} groups of equal ones; '
    f'{found["surplus"]:,} could be left out. {several}'
  )
  rows = [
    (f'{group["copies"]:,}', element('bdi', ', '.join(map(shortened, group['keys']))))
    for group in found['largest']
  ]
  grid = markup.table(('Copies', 'Keys'), rows, 'The largest groups of equal records', 'words')
  return markup.join(element('p', first), grid)


def unsound(figures: Figures) -> markup.Html:
  """Records that training would refuse."""
  found = figures['unsound']
  text = f'{found["records"]:,} records break the rules of a data set. The first of them:'
  rows = [(shortened(item['key']), shortened(item['reason'])) for item in found['first']]
  grid = markup.table(('Key', 'Reason'), rows, 'Unsound records', 'words')
  return markup.join(element('p', text), grid)


def quarantine(figures: Figures) -> markup.Html:
  """What was rejected when the data set was made."""
  found = figures['quarantine']
  rows = [(item['reason'], f'{item["count"]:,}') for item in found['reasons'][:_NAMES]]
  parts = [
    element('p', f'{found["rejected"]:,} were rejected when this data set was made.'),
    markup.table(('Reason', 'Count'), rows, 'Rejections by reason', 'words'),
  ]
  if len(found['reasons']) > _NAMES:
    parts.append(note(f'{len(found["reasons"]) - _NAMES:,} more reasons are left out.'))
  examples = [
    (
      f'{example["file"]}:{example["line"]}',
      item['reason'],
      element('code', example['excerpt']),
    )
    for item in found['reasons'][:_NAMES]
    for example in item['examples']
  ]
  table = markup.table(('Place', 'Reason', 'Excerpt'), examples, 'Examples', 'words')
  return markup.join(*parts, element('details', element('summary', 'Examples'), table))


def shortened(text: str, most: int = 200) -> str:
  """The beginning of a text that is too long for a cell."""
  return text if len(text) <= most else f'{text[:most]} …'


def note(text: str) -> markup.Html:
  """An aside."""
  return element('p', text, class_='quiet')
