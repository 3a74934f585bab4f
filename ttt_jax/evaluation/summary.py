"""The figures of an evaluation as a table: of text for the console, of HTML for the report."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ttt_jax.pages import markup
from ttt_jax.pages.markup import element


class Row(NamedTuple):
  """One figure, and the names of the results that it is made of.

  Attributes:
    name: what is measured.
    better: lower or higher.
    model: the model's own figure.
    codec: the same for the reference speech after the codec alone, or ''.
    original: the same for the reference speech, or ''.
    records: how many records there were.
  """

  name: str
  better: str
  model: str
  codec: str
  original: str
  records: str


ROWS = (
  Row(
    'Speaking: word error rate',
    'lower',
    'tts_wer',
    'tts_wer_floor_codec',
    'tts_wer_floor_original',
    'tts_records',
  ),
  Row('Transcribing: word error rate', 'lower', 'asr_wer', '', '', 'asr_records'),
  Row('Answering: text right', 'higher', 'qa_text_accuracy', '', '', 'qa_records'),
  Row(
    'Answering: speech right',
    'higher',
    'qa_audio_accuracy',
    'qa_audio_ceiling_codec',
    'qa_audio_ceiling_original',
    'qa_records',
  ),
)

_HEADINGS = ('', 'model', 'codec alone', 'original', 'records')


def known(results: Mapping[str, Any]) -> list[Row]:
  """The figures that there are results for."""
  return [row for row in ROWS if row.model in results]


def percent(results: Mapping[str, Any], name: str) -> str:
  """A fraction in percent; empty if there is none."""
  return f'{100 * results[name]:.1f} %' if name in results else ''


def duration(seconds: float) -> str:
  """A length of time for people."""
  if seconds < 60:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours} h {minutes} min' if hours else f'{minutes} min {rest} s'


def more(results: Mapping[str, Any]) -> dict[str, str]:
  """What stands below the table: likelihoods, answers that were cut short, and times."""
  out = {}
  if 'text_nats' in results:
    count = f' ({results["text_targets"]} targets)' if 'text_targets' in results else ''
    out['Text likelihood'] = f'{results["text_nats"]:.3f} nats a token{count}'
  if 'audio_bound' in results:
    count = f' ({results["audio_tokens"]} tokens)' if 'audio_tokens' in results else ''
    out['Audio likelihood'] = f'at most {results["audio_bound"]:.3f} nats a token{count}'
  if 'cut_short' in results:
    out['Cut short by a limit'] = f'{results["cut_short"]} answers'
  for stage, seconds in results.get('seconds', {}).items():
    out[f'Time to {stage}'] = duration(seconds)
  return out


def table(results: Mapping[str, Any]) -> str:
  """The results as aligned lines of text; figures that are missing are left out.

  The two columns beside the model's are the floors (of error rates) and ceilings (of
  accuracies): what the same listener makes of the reference speech.
  """
  lines = [_HEADINGS]
  for row in known(results):
    figures = [percent(results, name) for name in (row.model, row.codec, row.original)]
    lines.append((row.name, *figures, str(results.get(row.records, ''))))
  widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
  out = []
  if len(lines) > 1:
    for line in lines:
      cells = [line[0].ljust(widths[0])]
      cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
      out.append('  '.join(cells).rstrip())
    out.append('')
  facts = more(results)
  width = max(map(len, facts), default=0)
  out += [f'{name.ljust(width)}  {value}' for name, value in facts.items()]
  if results.get('note'):
    out += ['', f'Note: {results["note"]}']
  return '\n'.join(out).strip('\n')


def html(results: Mapping[str, Any]) -> markup.Html:
  """The results as a table with a picture of each line, and what stands below it."""
  rows = known(results)
  parts = []
  if rows:
    headings = ('Figure', 'Model', 'Codec alone', 'Original', '0 to 100 %', 'Records')
    head = element('tr', *(element('th', text, scope='col') for text in headings))
    body = [_line(results, row) for row in rows]
    grid = element('table', element('thead', head), element('tbody', *body))
    parts += [markup.scrolling('Table of results', grid), _legend()]
  parts.append(markup.definitions(more(results)))
  return markup.join(*parts)


def _line(results: Mapping[str, Any], row: Row) -> markup.Html:
  name = element('th', row.name, ' ', element('small', f'{row.better} is better'), scope='row')
  model = element('td', element('strong', percent(results, row.model)))
  beside = [element('td', percent(results, key) or '–') for key in (row.codec, row.original)]
  drawn = element('td', _bar(results, row))
  return element(
    'tr', name, model, *beside, drawn, element('td', str(results.get(row.records, '')))
  )


def _bar(results: Mapping[str, Any], row: Row) -> markup.Html:
  """The model's figure as a bar, the two beside it as marks."""

  def at(name: str) -> float:
    return round(2 + 156 * min(1.0, max(0.0, results[name])), 1)

  parts = [
    element('rect', class_='rail', x=2, y=7, width=156, height=8, rx=4),
    element(
      'rect', class_='level', x=2, y=7, width=round(at(row.model) - 2, 1), height=8, rx=4
    ),
  ]
  for kind, name in (('codec', row.codec), ('original', row.original)):
    if name in results:
      x = at(name)
      parts.append(element('line', class_=f'mark {kind}', x1=x, x2=x, y1=2, y2=20))
  return element('svg', *parts, viewBox='0 0 160 22', class_='bar', aria_hidden='true')


def _legend() -> markup.Html:
  return markup.join(
    markup.swatches(
      {'level': 'the model', 'mark codec': 'codec alone', 'mark original': 'original speech'}
    ),
    element(
      'p',
      'Codec alone and original are what the same listener makes of the reference speech. '
      'Codec alone is what a model would score that had learned everything.',
      class_='quiet',
    ),
  )
