"""How training went: the curves of metrics.jsonl, against the step and against the noise."""

import contextlib
import math
import pathlib
from typing import Any

from ttt_jax import json_file
from ttt_jax.pages import markup, plots
from ttt_jax.pages.markup import element

FILE = 'metrics.jsonl'
_LATEST = 5  # reports that are averaged against noise


def read(checkpoint: str | pathlib.Path) -> list[dict[str, Any]]:
  """The reports of a run, ascending in `step`; a step that was done twice counts once.

  Without a file, or in a line that was cut off, there is nothing.
  """
  try:
    lines = (
      pathlib.Path(checkpoint, FILE).read_text(encoding='utf-8', errors='replace').splitlines()
    )
  except OSError:
    return []
  reports = {}
  for line in lines:
    with contextlib.suppress(ValueError, KeyError, TypeError):
      report = json_file.parse(line.encode())
      if type(report['step']) is int and abs(report['step']) < 2**53:
        # Evaluations have lines of their own.
        reports[report['step']] = reports.get(report['step'], {}) | report
  return [reports[step] for step in sorted(reports)]


def against_step(reports: list[dict[str, Any]], audio_ids: int) -> markup.Html:
  """Losses and accuracy in the course of training.

  Args:
    reports: as `read` gives them.
    audio_ids: how many ids an audio token is chosen from.
  """
  chance = ('chance', math.log(audio_ids))
  text, audio = 'text-target', 'audio-target'
  charts = [
    _chart(reports, 'text_loss', 'Text loss, nats a token', text),
    _chart(reports, 'audio_loss', 'Audio loss, nats a token', audio, reference=chance),
    _chart(reports, 'audio_accuracy', 'Masked tokens restored', audio, percent=True),
  ]
  row = _row(charts)
  if any(charts):
    row = markup.join(
      row,
      element(
        'p',
        'Audio counts where it was masked; chance is a guess among all audio tokens. '
        'These are the batches of training, not the held-out records.',
        class_='quiet',
      ),
    )
  return row


def against_noise(reports: list[dict[str, Any]], audio_ids: int) -> markup.Html:
  """Audio loss and accuracy where little or much was masked, over the latest reports.

  Args:
    reports: as `read` gives them.
    audio_ids: how many ids an audio token is chosen from.
  """
  reports = reports[-_LATEST:]
  chance = ('chance', math.log(audio_ids))
  charts = [
    _by_noise(reports, 'audio_loss', 'Audio loss, nats a token', reference=chance),
    _by_noise(reports, 'audio_accuracy', 'Masked tokens restored', percent=True),
  ]
  row = _row(charts)
  if any(charts):
    steps = f'{reports[0]["step"]} to {reports[-1]["step"]}'
    text = f'Mean of the last {len(reports)} reports of training (steps {steps}).'
    row = markup.join(row, element('p', text, class_='quiet'))
  return row


def _row(charts: list[markup.Html]) -> markup.Html:
  if not any(charts):
    return element('p', f'The run has no {FILE}: nothing to draw.', class_='quiet')
  return element('div', *charts, class_='charts')


def _chart(reports, name: str, title: str, kind: str, **more) -> markup.Html:
  """A figure in the course of training; empty if it was never reported."""
  points = [(report['step'], report.get(name)) for report in reports]
  points = [(step, value) for step, value in points if _finite(value)]
  if not points:
    return markup.Html('')
  return plots.line_chart(points, title=title, x_label='step', kind=kind, last=True, **more)


def _by_noise(reports, name: str, title: str, **more) -> markup.Html:
  """The mean of a figure at each of ten levels of noise; empty if it is not known."""
  points = []
  for level in range(10):
    values = [report.get(f'{name}/{level / 10:.1f}') for report in reports]
    if known := [value for value in values if _finite(value)]:
      points.append(((level + 0.5) / 10, sum(known) / len(known)))
  if not points:
    return markup.Html('')
  x_label = 'part of the audio that is masked'
  return plots.line_chart(points, title=title, x_label=x_label, kind='audio-target', **more)


def _finite(value: Any) -> bool:
  return isinstance(value, (int, float)) and abs(value) < 1e300
