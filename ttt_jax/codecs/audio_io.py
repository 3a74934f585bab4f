"""Waveforms in and out of files, at any sample rate.

A waveform is always `[S]` float32 samples, mono, with full scale at -1 and 1.
"""

import os
import pathlib

import numpy as np
import soundfile
import soxr

from ttt_jax import errors


class AudioError(errors.UserError):
  """A waveform, or a file that should hold one, cannot be used."""


def check_wave(wave: np.ndarray, name: str = 'wave') -> None:
  """Refuses what is not a waveform.

  Args:
    wave: what should be `[S]` float32 samples with S > 0, all of them finite.
    name: what the message calls it: a file, or the name of an argument.

  Raises:
    AudioError: the array has another type or shape, is empty, or holds NaN or infinity.
  """
  if not isinstance(wave, np.ndarray) or wave.dtype != np.float32:
    found = wave.dtype if isinstance(wave, np.ndarray) else type(wave).__name__
    raise AudioError(f'{name}: expected a float32 numpy array of samples, got {found}')
  if wave.ndim != 1:
    raise AudioError(
      f'{name}: expected one channel, shape [S], got {list(wave.shape)}; average the channels'
    )
  if not wave.size:
    raise AudioError(f'{name}: holds no samples; leave out empty recordings')
  bad = np.flatnonzero(~np.isfinite(wave))
  if bad.size:
    raise AudioError(
      f'{name}: sample {bad[0]} is {wave[bad[0]]} ({bad.size} of {wave.size} are not finite);'
      ' record or convert the sound again'
    )


def _check_rate(sample_rate: int, name: str) -> None:
  if not float(sample_rate) > 0 or float(sample_rate) == float('inf'):
    raise AudioError(f'{name} must be a positive number of samples a second, got {sample_rate}')


def read_wav(path: str | os.PathLike) -> tuple[np.ndarray, int]:
  """Reads a sound file in any format that libsndfile knows (WAV, FLAC, OGG, ...).

  Args:
    path: the file.

  Returns:
    The samples, `[S]` float32, channels averaged, and the file's sample rate in Hz.

  Raises:
    AudioError: the file is missing, empty, not a sound file, or holds no usable samples.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise AudioError(f'{path}: no such sound file; check the path')
  if path.stat().st_size == 0:
    raise AudioError(f'{path}: the file is empty (0 bytes); record or copy it again')
  try:
    samples, sample_rate = soundfile.read(path, dtype='float32', always_2d=True)
  except (soundfile.SoundFileError, OSError) as error:
    raise AudioError(
      f'{path}: not a readable sound file ({error}); convert it to WAV or FLAC'
    ) from error
  wave = samples.mean(axis=1, dtype=np.float32)
  check_wave(wave, str(path))
  return wave, int(sample_rate)


def write_wav(path: str | os.PathLike, wave: np.ndarray, sample_rate: int) -> None:
  """Writes a 16-bit PCM WAV file. Samples beyond full scale are clipped.

  Args:
    path: the file to make; its folder must exist.
    wave: `[S]` float32 samples.
    sample_rate: samples a second.

  Raises:
    AudioError: the waveform is not one, or the file cannot be written.
  """
  check_wave(wave, f'wave to write to {path}')
  _check_rate(sample_rate, 'sample_rate')
  try:
    soundfile.write(path, wave, int(sample_rate), subtype='PCM_16', format='WAV')
  except (soundfile.SoundFileError, OSError) as error:
    raise AudioError(
      f'{path}: cannot be written ({error}); check that the folder exists and is writable'
    ) from error


def resample(wave: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
  """Brings a waveform to another sample rate.

  Args:
    wave: `[S]` float32 samples at `from_rate`.
    from_rate: samples a second of `wave`.
    to_rate: samples a second wanted.

  Returns:
    `[S']` float32 samples at `to_rate`; `wave` itself where the rates are equal.

  Raises:
    AudioError: the waveform is not one, or a rate is not positive.
  """
  check_wave(wave, 'wave to resample')
  _check_rate(from_rate, 'from_rate')
  _check_rate(to_rate, 'to_rate')
  if from_rate == to_rate:
    return wave
  return soxr.resample(wave, from_rate, to_rate).astype(np.float32, copy=False)
