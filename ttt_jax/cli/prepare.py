r"""Makes a data set of records, from files of conversations and of audio.

ttt-prepare --source='asr/*.jsonl' --source=speak=tts.parquet --checkpoint=START --out=DATA

Run it again after whatever ended it: what is done is kept. docs/data.md says what the files
hold, docs/preparing_at_scale.md how clusters are used.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time

import tqdm
from absl import flags

from data_pipelines.converting import conversion
from data_pipelines.preparing import piecework, preparation
from data_pipelines.reading import sources
from ttt_jax import assets as assets_lib
from ttt_jax import errors, machine
from ttt_jax.cli import settings
from ttt_jax.codecs import codec as codec_lib

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(conversion.Conversion)}
_DEFAULTS |= preparation.Job._field_defaults

_SOURCE = flags.DEFINE_multi_string(
  'source', [], 'File, folder or pattern of records; TASK=PATH says what their task is.'
)
_DATA_CONFIG = flags.DEFINE_multi_string(
  'data_config', [], 'List of files with their ratios and kinds, as the authors write it.'
)
_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'Folder of a run, whose vocabulary the records are for.', required=True
)
_OUT = flags.DEFINE_string('out', None, 'Folder of the data set.', required=True)
_AUDIO_ROOT = flags.DEFINE_string(
  'audio_root',
  _DEFAULTS['audio_root'],
  'Folder that audio files lie below; that of the file that names them, by default.',
)
_MAX_SECONDS = flags.DEFINE_float(
  'max_seconds', _DEFAULTS['max_seconds'], 'How much audio a record may have.', lower_bound=0
)
_CODEC = flags.DEFINE_string(
  'codec', _DEFAULTS['codec'], 'Folder of the codec of audio files, if the checkpoint has none.'
)
_SPLIT = flags.DEFINE_string('split', _DEFAULTS['split'], 'Where the records go.')
_HELD_OUT = flags.DEFINE_float(
  'held_out', _DEFAULTS['held_out'], "Share of records that go to 'test' instead.", 0.0, 1.0
)
_MAX_REJECTED = flags.DEFINE_float(
  'max_rejected',
  _DEFAULTS['max_rejected'],
  'A larger share of rejected records ends the run.',
  0.0,
  1.0,
)
_PROCESSES = flags.DEFINE_integer(
  'processes', None, 'How many work on it; the cores of this machine, by default.', 1
)
_PIECE_MB = flags.DEFINE_float(
  'piece_mb', 64.0, 'How much of a file becomes one shard, in megabytes.', 1e-6
)
_BEAM = flags.DEFINE_multi_string(
  'beam', [], "Runs on Apache Beam with an option of its pipelines, say 'runner=FlinkRunner'."
)

_REASONS, _WIDTH = 10, 70  # so many reasons are printed, and so much of each


def main():
  """Reads the flags."""
  if _SPLIT.value == piecework.HELD_OUT and _HELD_OUT.value:
    raise errors.UserError(f'--held_out goes to {piecework.HELD_OUT!r}: use another --split')
  folder = str(pathlib.Path(_CHECKPOINT.value, assets_lib.DIRECTORY))
  convert = conversion.Conversion(
    folder, _AUDIO_ROOT.value, _MAX_SECONDS.value, codec=_CODEC.value
  )
  piece_bytes = int(_PIECE_MB.value * 1e6)
  pieces = conversion.plan(_SOURCE.value, _DATA_CONFIG.value, piece_bytes)
  codec = conversion.load(folder, _CODEC.value).codec
  job = preparation.Job(
    pieces,
    sources.read,
    convert,
    assets_lib.load(folder),
    _settings(convert, codec),
    split=_SPLIT.value,
    held_out=_HELD_OUT.value,
    max_rejected=_MAX_REJECTED.value,
  )
  _print_result(_prepare(job), codec)


def _settings(convert: conversion.Conversion, codec: codec_lib.Codec) -> dict:
  """What records depend on, by the names of the flags where there are."""
  values = dataclasses.asdict(convert) | {'codec': codec.fingerprint}
  del values['assets']  # the folder; its fingerprints count
  return values | {'piece_mb': _PIECE_MB.value}


def _prepare(job: preparation.Job) -> preparation.Result:
  if not _BEAM.value:
    processes = _PROCESSES.value or machine.cores()
    with _Progress() as progress:
      return preparation.prepare(_OUT.value, job, processes, progress)
  try:
    import apache_beam  # noqa: F401 (an extra)
  except ModuleNotFoundError as error:
    raise errors.UserError('--beam needs the extra: pip install "ttt_jax[beam]"') from error
  from data_pipelines.preparing import beam

  return beam.prepare(_OUT.value, job, [f'--{option}' for option in _BEAM.value])


class _Progress:
  """A bar on a terminal; elsewhere, a line now and then."""

  EVERY = 30.0  # seconds between two lines

  def __enter__(self) -> '_Progress':
    self._bar = tqdm.tqdm(desc='prepare', unit='piece', disable=not sys.stderr.isatty())
    self._start, self._said, self._before = time.monotonic(), time.monotonic(), None
    return self

  def __exit__(self, *_):
    self._bar.close()

  def __call__(self, done: int, pieces: int, counts: piecework.Counts) -> None:
    now = time.monotonic()
    if self._before is None:
      self._before, self._bar.initial = counts, done
    seconds = max(now - self._start, 1e-9)
    new = counts - self._before
    rate = f'{new.records / seconds:,.0f} records/s, {new.tokens / seconds:,.0f} tokens/s'
    rate += f', {counts.rejected:,} rejected' if counts.rejected else ''
    self._bar.total, self._bar.n = pieces, done
    self._bar.set_postfix_str(rate)
    if self._bar.disable and now - self._said > self.EVERY:
      print(f'{done} of {pieces} pieces, {rate}', file=sys.stderr, flush=True)
      self._said = now


def _print_result(result: preparation.Result, codec: codec_lib.Codec) -> None:
  counts, new = result.counts, result.new
  print(f'{_OUT.value}: {counts.records:,} records')
  rows = [(f'  in {split}', f'{number:,}') for split, number in result.splits.items()]
  rows += [('tokens', f'{counts.tokens:,}'), ('  of audio', f'{counts.codes:,}')]
  with contextlib.suppress(codec_lib.CodecError):  # it lives elsewhere
    rows.append(('hours of audio', f'{counts.codes / codec.frame_rate / 3600:,.2f}'))
  rows.append(('rejected', f'{counts.rejected:,} of {counts.items:,}'))
  reasons = list(result.reasons.items())[:_REASONS]
  rows += [(f'  {reason:.{_WIDTH}}', f'{number:,}') for reason, number in reasons]
  rows.append(('pieces done before', f'{result.kept:,}'))
  rate = new.records / result.seconds, new.tokens / result.seconds
  rows.append(('seconds', f'{result.seconds:,.1f}'))
  rows.append(('a second', f'{rate[0]:,.0f} records, {rate[1]:,.0f} tokens'))
  width = max(len(name) for name, _ in rows)
  for name, value in rows:
    print(f'{name:{width}}  {value}')
  if counts.rejected:
    print(f'what was rejected: {pathlib.Path(_OUT.value, preparation.QUARANTINE)}')


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
