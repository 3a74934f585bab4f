"""Small drawings without a plotting library: line charts in SVG, pictures in PNG."""

import base64
import math
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 10, 12, 38  # margins around the plotted area
_DOTTED = 40  # points up to which each is marked
_MOST = 200  # points drawn; more are averaged


def line_chart(
  points: Points,
  *,
  title: str,
  x_label: str,
  kind: str,
  percent: bool = False,
  reference: tuple[str, float] | None = None,
  last: bool = False,
) -> markup.Html:
  """One curve with axes, as a figure.

  Args:
    points: x and y, ascending in x; at least one.
    title: what y is, with its unit.
    x_label: what x is.
    kind: class of the curve's colour in report.css.
    percent: y is a fraction, to be written in percent.
    reference: a name and a height: a line to hold the curve against.
    last: write the last value beside the title.
  """
  drawn = thinned(points, _MOST)
  heights = [y for _, y in drawn] + ([reference[1]] if reference else [])
  area = _Area(drawn, heights)

  def written(y: float) -> str:
    return f'{100 * y:.3g} %' if percent else f'{y:.3g}'

  parts = _axes(area, written, x_label)
  if reference:
    parts += [_across('rule', area.y(reference[1]))]
    parts += [_text(reference[0], _WIDTH - _RIGHT, area.y(reference[1]) - 5, 'end')]
  path = 'M' + 'L'.join(f'{area.x(x)} {area.y(y)}' for x, y in drawn)
  parts.append(element('path', class_='curve', d=path))
  dot = 'dot' if len(drawn) <= _DOTTED else 'dot hidden'
  for x, y in drawn:
    hint = element('title', f'{x_label} {x:g}: {written(y)}')
    parts.append(element('circle', hint, class_=dot, cx=area.x(x), cy=area.y(y), r=3))
  begins, ends = written(drawn[0][1]), written(drawn[-1][1])
  label = f'{title} against {x_label}: from {begins} to {ends}'
  box = f'0 0 {_WIDTH} {_HEIGHT}'
  drawing = element('svg', *parts, viewBox=box, role='img', aria_label=label, class_=kind)
  value = element('span', ends, class_='last', title='the last value') if last else ''
  return element(
    'figure', element('figcaption', element('b', title), value), drawing, class_='chart'
  )


class _Area:
  """Where numbers lie in the drawing."""

  def __init__(self, points: Points, heights: Sequence[float]):
    self.low, self.high = points[0][0], points[-1][0]
    lowest = min(heights)
    self.y_ticks = ticks(0.0 if lowest < max(heights) / 2 else lowest, max(heights))
    self.x_ticks = ticks(self.low, self.high, inside=True)

  def x(self, x: float) -> float:
    part = (x - self.low) / (self.high - self.low) if self.high > self.low else 0.5
    return round(_LEFT + part * (_WIDTH - _LEFT - _RIGHT), 1)

  def y(self, y: float) -> float:
    part = (y - self.y_ticks[0]) / (self.y_ticks[-1] - self.y_ticks[0])
    return round(_HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM), 1)


def _axes(area: _Area, written: Callable[[float], str], x_label: str) -> list[markup.Html]:
  parts = []
  for y in area.y_ticks:
    parts += [_across('grid', area.y(y)), _text(written(y), _LEFT - 6, area.y(y) + 4, 'end')]
  for x in area.x_ticks:
    parts.append(_text(f'{x:g}', area.x(x), _HEIGHT - _BOTTOM + 15, 'middle'))
  middle = (_LEFT + _WIDTH - _RIGHT) / 2
  return [*parts, _text(x_label, middle, _HEIGHT - 4, 'middle')]


def _across(kind: str, y: float) -> markup.Html:
  return element('line', class_=kind, x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y)


def _text(text: str, x: float, y: float, anchor: str) -> markup.Html:
  return element('text', text, x=x, y=y, text_anchor=anchor)


def ticks(low: float, high: float, inside: bool = False) -> list[float]:
  """Three to seven round numbers from `low` or below to `high` or above.

  Args:
    low: least value.
    high: greatest value, not below `low`.
    inside: only numbers from `low` to `high`.
  """
  if high <= low:
    return [low] if inside else [low, low + (abs(low) or 1.0)]
  least = (high - low) / 4
  power = 10.0 ** math.floor(math.log10(least))
  step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= least * (1 - 1e-9))
  first, last = low / step, high / step
  first = math.ceil(first - 1e-9) if inside else math.floor(first + 1e-9)
  last = math.floor(last + 1e-9) if inside else math.ceil(last - 1e-9)
  return [float(f'{i * step:.10g}') for i in range(first, last + 1)]


def thinned(points: Points, most: int) -> list[tuple[float, float]]:
  """At most `most` points: means of stretches of neighbours, if there are more."""
  if len(points) <= most:
    return list(points)
  stretches = np.array_split(np.array(points, np.float64), most)
  return [tuple(stretch.mean(0).tolist()) for stretch in stretches]


def data_uri(kind: str, content: bytes) -> str:
  """A file as an address that holds all of it."""
  return f'data:{kind};base64,' + base64.b64encode(content).decode()


def png(pixels: np.ndarray, palette: np.ndarray) -> bytes:
  """A PNG file.

  Args:
    pixels: uint8 [height, width], indices into the palette.
    palette: uint8 [colours, 3], red, green and blue; up to 256 colours.
  """
  height, width = pixels.shape

  def chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', check)

  lines = np.pad(pixels.astype(np.uint8), ((0, 0), (1, 0)))  # a 0: the line is not filtered
  return b''.join(
    [
      b'\x89PNG\r\n\x1a\n',
      chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 3, 0, 0, 0)),
      chunk(b'PLTE', palette.astype(np.uint8).tobytes()),
      chunk(b'IDAT', zlib.compress(lines.tobytes(), 9)),
      chunk(b'IEND', b''),
    ]
  )
