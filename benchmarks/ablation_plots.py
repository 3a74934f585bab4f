"""Drawings of what benchmarks/ablation.py found: word error rates, on logarithmic axes; SVG."""

import math

from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

Found = dict[str, list[dict[str, float]]]  # figures of the runs of each variant, by name

PANELS = {
  'speak speech_wer': 'speak',
  'transcribe wer': 'transcribe',
  'answer speech_wer': 'answer aloud',
}
# Figures by passes a block.
PASSES = {
  1: 'speak_1_of_13 speech_wer',
  2: 'speak_2_of_13 speech_wer',
  4: 'speak speech_wer',
  8: 'speak_8_of_13 speech_wer',
}
_LEAST, _DECADES = 0.003, 3  # rates from 0.3 % on
_TICKS = (0.01, 0.1, 1.0)
_STYLE = (
  'svg{background:#fff}text{font:12px sans-serif;fill:#222}line{stroke:#ddd}'
  'circle{fill:#4466aa;opacity:.8}path{stroke:#4466aa;fill:none}'
)


def _share(rate: float) -> float:
  """Where a rate lies between the ends of an axis, 0 to 1."""
  found = math.log10(max(rate, _LEAST) / _LEAST) / _DECADES
  return min(max(found, 0.0), 1.0)


def _svg(width: int, height: int, parts: list[markup.Html]) -> str:
  box = f'0 0 {width} {height}'
  namespace = 'http://www.w3.org/2000/svg'
  return element('svg', element('style', _STYLE), *parts, viewBox=box, xmlns=namespace)


def dots(found: Found) -> str:
  """A line a variant, a panel a task, a dot a run."""
  line, left, wide, top = 22, 220, 190, 40
  bottom = top + line * len(found)
  parts = []

  def across(panel: int, rate: float) -> float:
    return round(left + panel * (wide + 20) + wide * _share(rate), 1)

  for panel, title in enumerate(PANELS.values()):
    parts.append(element('text', title, x=across(panel, 0), y=16))
    for tick in _TICKS:
      x = across(panel, tick)
      parts.append(element('line', x1=x, x2=x, y1=top - 4, y2=bottom))
      parts.append(element('text', f'{tick:.0%}', x=x, y=top - 8, text_anchor='middle'))
  for row, (variant, runs) in enumerate(found.items()):
    y = top + line * row + 14
    parts.append(element('text', variant, x=4, y=y))
    for panel, name in enumerate(PANELS):
      parts += [element('circle', cx=across(panel, run[name]), cy=y - 4, r=4) for run in runs]
  return _svg(left + len(PANELS) * (wide + 20), bottom + 10, parts)


def against_passes(found: Found) -> str:
  """A curve a variant: the mean over its runs, against the passes that a block takes."""
  left, top, wide, high, names = 48, 12, 300, 300, 230
  parts, labels = [], []

  def across(passes: int) -> float:
    return round(left + wide * math.log2(passes) / math.log2(max(PASSES)), 1)

  def down(rate: float) -> float:
    return round(top + high * (1 - _share(rate)), 1)

  for tick in _TICKS:
    parts.append(element('line', x1=left, x2=left + wide, y1=down(tick), y2=down(tick)))
    label = element('text', f'{tick:.0%}', x=left - 6, y=down(tick) + 4, text_anchor='end')
    parts.append(label)
  for passes in PASSES:
    text = dict(x=across(passes), y=top + high + 18, text_anchor='middle')
    parts.append(element('text', str(passes), **text))
  middle = dict(x=left + wide / 2, y=top + high + 36, text_anchor='middle')
  parts.append(element('text', 'passes for a block of 13 tokens', **middle))
  for variant, runs in found.items():
    if not all(name in run for name in PASSES.values() for run in runs):
      continue  # it has no blocks
    rates = {p: sum(run[name] for run in runs) / len(runs) for p, name in PASSES.items()}
    points = [(across(p), down(rate)) for p, rate in rates.items()]
    parts.append(element('path', d='M' + 'L'.join(f'{x} {y}' for x, y in points)))
    parts += [element('circle', cx=x, cy=y, r=3) for x, y in points]
    labels.append((points[-1][1], variant))
  lowest = top
  for y, variant in sorted(labels):  # names that would lie on each other move down
    lowest = max(y + 4, lowest + 14)
    parts.append(element('text', variant, x=left + wide + 10, y=lowest))
  return _svg(left + wide + names, max(top + high + 44, round(lowest) + 8), parts)
