"""Histograms in SVG, with their numbers beside them."""

from collections.abc import Sequence

from ttt_jax.pages import markup, plots
from ttt_jax.pages.markup import element

_WIDTH, _HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 12, 38  # margins around the plotted area

Bins = Sequence[tuple[int, int, int]]


def histogram(bins: Bins, *, title: str, x_label: str, kind: str) -> markup.Html:
  """Bars with axes, as a figure; the numbers are in a table that can be unfolded.

  Args:
    bins: from, to (inclusive) and count, ascending; at least one.
    title: what is counted.
    x_label: what the bins are of.
    kind: class of the bars' colour in page.css.
  """
  marks = plots.ticks(0, max(1, *(count for _, _, count in bins)))
  low = _HEIGHT - _BOTTOM

  def y(count: float) -> float:
    return round(low - count / marks[-1] * (low - _TOP), 1)

  parts = []
  for mark in marks:
    line = {'x1': _LEFT, 'x2': _WIDTH - _RIGHT, 'y1': y(mark), 'y2': y(mark)}
    parts.append(element('line', class_='grid', **line))
    parts.append(_text(short(mark), _LEFT - 6, y(mark) + 4, 'end'))
  width = (_WIDTH - _LEFT - _RIGHT) / len(bins)
  for place, (start, end, count) in enumerate(bins):
    hint = element('title', f'{_range(start, end)}: {count:,}')
    parts.append(
      element(
        'rect',
        hint,
        class_='column',
        x=round(_LEFT + place * width, 1),
        y=y(count),
        width=round(max(0.5, width - 1), 1),
        height=round(low - y(count), 1),
      )
    )
  for place in sorted({0, len(bins) // 2, len(bins) - 1}):
    start = bins[place][0]
    tail = place and place == len(bins) - 1 and bins[-1][1] - start > bins[0][1] - bins[0][0]
    at = _LEFT + (place + 0.5) * width
    parts.append(_text(short(start) + ('+' if tail else ''), at, low + 15, 'middle'))
  parts.append(_text(x_label, (_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, 'middle'))
  label = f'Histogram of {title}: {len(bins)} bars from {bins[0][0]} to {bins[-1][1]} {x_label}'
  box = f'0 0 {_WIDTH} {_HEIGHT}'
  drawing = element('svg', *parts, viewBox=box, role='img', aria_label=label, class_=kind)
  rows = [(_range(start, end), f'{count:,}') for start, end, count in bins]
  numbers = element(
    'details',
    element('summary', 'Numbers'),
    markup.table(('Tokens', 'Count'), rows, label=f'Numbers of the histogram of {title}'),
  )
  caption = element('figcaption', element('b', title))
  return element('figure', caption, drawing, numbers, class_='chart')


def short(value: float) -> str:
  """A number for an axis: 1,500 is 1.5k."""
  for size, sign in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= size:
      return f'{value / size:.4g}{sign}'
  return f'{value:.4g}'


def _range(start: int, end: int) -> str:
  return f'{start:,}' if start == end else f'{start:,} to {end:,}'


def _text(text: str, x: float, y: float, anchor: str) -> markup.Html:
  return element('text', text, x=round(x, 1), y=y, text_anchor=anchor)
