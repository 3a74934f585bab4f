"""Metrics of training: sums added up between reports, and where reports go."""

import json
import pathlib
import time
from typing import Any

import numpy as np
import tensorboardX
import tqdm

from ttt_jax import losses


def summarize(sums: losses.Sums) -> dict[str, float]:
  """Reported figures from added-up sums (numpy arrays).

  Losses are in nats a target; `audio_loss` is over masked tokens, and the accuracies by
  noise level stand under `audio_accuracy/0.0` (levels up to 0.1) to `audio_accuracy/0.9`.
  A figure whose count is 0 is left out.
  """
  out = {'loss': float(sums.objective / max(float(sums.normalizer), 1))}
  if sums.text_count:
    out['text_loss'] = float(sums.text_loss / sums.text_count)
  if sums.audio_count.sum():
    out['audio_loss'] = float(sums.audio_loss.sum() / sums.audio_count.sum())
    out['audio_accuracy'] = float(sums.audio_correct.sum() / sums.audio_count.sum())
  for level, count in enumerate(sums.audio_count):
    if count:
      name = f'{level / losses.NOISE_BINS:.1f}'
      out[f'audio_loss/{name}'] = float(sums.audio_loss[level] / count)
      out[f'audio_accuracy/{name}'] = float(sums.audio_correct[level] / count)
  out['fill'] = float(sums.filled / sums.positions)
  return out


class Writer:
  """Writes reports to `metrics.jsonl`, tensorboard files and a bar on the console.

  Only the process that made it writes; the others pass `enabled=False`.
  """

  def __init__(self, directory: str | pathlib.Path, steps: int, start: int, enabled: bool):
    """Opens the files in `directory`, and a bar of `steps` that stands at `start`."""
    self._enabled = enabled
    self._added = None
    self._since = time.monotonic()
    if enabled:
      self._path = pathlib.Path(directory, 'metrics.jsonl')
      self._board = tensorboardX.SummaryWriter(str(directory))
      self._bar = tqdm.tqdm(total=steps, initial=start, desc='train', unit='step')

  def add(self, sums: losses.Sums, norm) -> None:
    """Counts one step in; nothing is fetched from the device before `report`."""
    if self._enabled:
      self._bar.update()
    now = (sums, norm)
    self._added = [now] if self._added is None else [*self._added, now]

  def report(self, step: int, **more: float) -> dict[str, Any]:
    """Writes the figures of the steps since the last report; `more` are added to them."""
    added, self._added = self._added, None
    # The first fetch waits for the device: the clock is read after it.
    sums = losses.Sums(
      *(
        np.sum([np.asarray(s[i]) for s, _ in added], 0) for i in range(len(losses.Sums._fields))
      )
    )
    now = time.monotonic()
    figures = summarize(sums)
    figures['gradient_norm'] = float(np.mean([np.asarray(norm) for _, norm in added]))
    figures['tokens_per_second'] = float(sums.filled / (now - self._since))
    figures |= more
    self._since = now
    if self._enabled:
      with self._path.open('a', encoding='utf-8') as lines:
        lines.write(json.dumps({'step': step, **figures}) + '\n')
      for name, value in figures.items():
        self._board.add_scalar(name, value, step)
      shown = ('text_loss', 'audio_loss', 'audio_accuracy')
      parts = {name: f'{figures[name]:.3f}' for name in shown if name in figures}
      self._bar.set_postfix(parts | {'tok/s': f'{figures["tokens_per_second"]:.0f}'})
    return figures

  def close(self) -> None:
    """Closes the files and the bar."""
    if self._enabled:
      self._board.close()
      self._bar.close()
