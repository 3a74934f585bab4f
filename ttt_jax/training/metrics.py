"""Figures of training, from sums and times, and where reports go."""

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging

from ttt_jax import config as config_lib
from ttt_jax import json_file, json_lines, losses, progress
from ttt_jax.model import formula
from ttt_jax.training import ledger

FILE = 'metrics.jsonl'
JUDGED = 'evaluation/'  # so the names of figures of evaluations begin
REDONE = 'metrics.redone.jsonl'  # reports of steps that were taken again


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


class Yardstick(NamedTuple):
  """What a speed is held against.

  Attributes:
    model: the network, whose operations `formula.TEXT` counts.
    vocabulary_size: ids in use.
    peak: operations a second of all devices together; None where it is not known.
  """

  model: config_lib.Model
  vocabulary_size: int
  peak: float | None


def speed(
  sums: losses.Sums, steps: int, spent: dict[str, float], yardstick: Yardstick
) -> dict[str, float]:
  """Reported figures of speed, all of them of this process.

    step_seconds       time in which the devices work on a step, mean; on several hosts, what
                       they wait for each other is in it
    tokens_per_second  tokens of all devices together, padding not counted
    mfu                operations that the tokens need (`formula.TEXT`) / (seconds * peak); left
                       out where the peak of the devices is not known
    data_wait          share of the time in which the devices had nothing to do because the
                       host waited for data
    compile_seconds    of the first call of the step; in the first report alone

  Time is all that was spent but `start` and `compile`, which come once, and `evaluate`: for
  waiting and for saving, the speed goes down.

  Args:
    sums: over the steps.
    steps: how many.
    spent: seconds of each part of the clock.
    yardstick: what `mfu` is relative to.
  """
  seconds = sum(spent.values()) - sum(spent[p] for p in ('start', 'compile', 'evaluate'))
  out = {
    'step_seconds': spent['step'] / steps,
    'tokens_per_second': float(sums.filled / seconds),
    'data_wait': spent['data'] / seconds,
  }
  if yardstick.peak:
    counts = sums.visible, sums.text_count + sums.audio_count.sum(), sums.filled
    rows = formula.Rows(*(float(count / sums.positions) for count in counts))
    each = formula.training(yardstick.model, yardstick.vocabulary_size, rows)
    out['mfu'] = each * float(sums.positions) / (seconds * yardstick.peak)
  if spent['compile']:
    out['compile_seconds'] = spent['compile']
  return out


def memory(devices: Sequence[Any]) -> dict[str, float]:
  """Bytes in use on the fullest device, now and at most; nothing where devices do not tell."""
  stats = [found for device in devices if (found := device.memory_stats())]
  names = {'device_memory': 'bytes_in_use', 'device_memory_peak': 'peak_bytes_in_use'}
  return {
    name: float(max(each[key] for each in stats))
    for name, key in names.items()
    if stats and all(key in each for each in stats)
  }


class Writer:
  """Writes reports to `metrics.jsonl`, tensorboard files and a bar on the console.

  Only the process that has a ledger writes; it gets a line with each report. A report that
  cannot be written, since the disk is full, is lost, and does not end the run. Reports of steps
  that no checkpoint had, and that are taken again, go to `metrics.redone.jsonl`.

  Attributes:
    judged: whether figures of an evaluation at the first step are there already.
  """

  def __init__(
    self,
    directory: str | pathlib.Path,
    steps: int,
    start: int,
    book: ledger.Ledger | None,
  ):
    """Opens the files in `directory`, and a bar of `steps` that stands at `start`."""
    self._enabled, self._book, self.judged = book is not None, book, False
    if self._enabled:
      self._path, self._board = pathlib.Path(directory, FILE), None
      try:
        self.judged = any(name.startswith(JUDGED) for name in _set_back(self._path, start))
      except OSError as error:
        logging.error('ALARM: reports beyond step %d stand twice in %s: %s', start, FILE, error)
      self._bar = progress.Bar(total=steps, initial=start, desc='train', unit='step')

  def advance(self) -> None:
    """Moves the bar on by a step."""
    if self._enabled:
      self._bar.update()

  def write(self, step: int, figures: dict[str, float]) -> None:
    """Writes a report."""
    if not self._enabled:
      return
    try:
      json_lines.append(self._path, {'step': step, **figures})
      self._show(step, figures)
    except OSError as error:
      self._board = None  # a record of it may be half written: the next one gets another file
      logging.error('ALARM: the report of step %d is lost: %s', step, error)
    self._book.note(step)
    shown = ('text_loss', 'audio_loss', 'audio_accuracy')
    parts = {name: f'{figures[name]:.3f}' for name in shown if name in figures}
    if 'tokens_per_second' in figures:
      parts |= {'tok/s': f'{figures["tokens_per_second"]:.0f}'}
      self._bar.set_postfix(parts)

  def _show(self, step: int, figures: dict[str, float]) -> None:
    if not self._board:
      # By who writes alone: this imports torch where it is installed, which takes seconds.
      from ttt_jax.training import board

      self._board = board.Board(self._path.parent)
    self._board.write(step, figures)

  def close(self) -> None:
    """Closes the files and the bar."""
    if self._enabled:
      with contextlib.suppress(OSError):
        if self._board:
          self._board.close()
      self._bar.close()


def _set_back(path: pathlib.Path, start: int) -> dict[str, Any]:
  """Moves the reports of steps beyond `start` to REDONE, and a line that was cut off.

  Returns:
    The figures of `start`.
  """
  known: dict[str, Any] = {}
  if not path.exists():
    return known
  with path.open('r+b') as lines:
    kept = 0
    for line in lines:
      report = _parsed(line)
      if not line.endswith(b'\n') or report['step'] > start:
        break
      if report['step'] == start:
        known |= report
      kept += len(line)
    lines.seek(kept)
    redone = lines.read()
    if redone:
      with path.with_name(REDONE).open('ab') as aside:
        aside.write(redone.removesuffix(b'\n') + b'\n')
        aside.flush()
        os.fsync(aside.fileno())  # what is cut off here must be safe there
      lines.truncate(kept)
  return known


def _parsed(line: bytes) -> dict[str, Any]:
  """A report; of step 0 where the line is none."""
  with contextlib.suppress(ValueError):
    report = json_file.parse(line)
    if isinstance(report, dict) and type(report.get('step')) is int:
      return report
  return {'step': 0}
