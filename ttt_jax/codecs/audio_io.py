"""Waveforms in and out of files, at any sample rate.

A waveform is always `[S]` float32 samples, mono, with full scale at -1 and 1.
"""

import contextlib
import io
import os
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import Self

import numpy as np
import soundfile
import soxr

from ttt_jax import errors

_OPEN = 2**32 - 1  # a length that a header does not tell


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


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[soundfile.SoundFile]:
  """Opens a sound file in any format that libsndfile knows (WAV, FLAC, OGG, ...).

  Args:
    path: the file.

  Yields:
    The file, to read from.

  Raises:
    AudioError: the file is missing, empty, or not a sound file, also where that shows only
      when it is read; or it has a form that can only be read from its begin.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise AudioError(f'{path}: no such sound file; check the path')
  if path.stat().st_size == 0:
    raise AudioError(f'{path}: the file is empty (0 bytes); record or copy it again')
  try:
    with soundfile.SoundFile(path) as file:
      if not file.seekable():
        raise AudioError(
          f'{path}: {file.subtype_info} can only be read from its begin; convert it to FLAC'
        )
      yield file
  except (soundfile.SoundFileError, OSError) as error:
    raise AudioError(
      f'{path}: not a readable sound file ({error}); convert it to WAV or FLAC'
    ) from error


def read_wav(path: str | os.PathLike) -> tuple[np.ndarray, int]:
  """Reads a whole sound file; see `opened`.

  Args:
    path: the file.

  Returns:
    The samples, `[S]` float32, channels averaged, and the file's sample rate in Hz.

  Raises:
    AudioError: the file is missing, empty, not a sound file, or holds no usable samples.
  """
  with opened(path) as file:
    samples, sample_rate = file.read(dtype='float32', always_2d=True), file.samplerate
  wave = samples.mean(axis=1, dtype=np.float32)
  check_wave(wave, str(path))
  return wave, int(sample_rate)


def pcm(wave: np.ndarray) -> bytes:
  """Samples, `[S]` float32, as 16-bit PCM, little-endian; clipped beyond full scale."""
  return np.clip(np.rint(wave * 2.0**15), -(2**15), 2**15 - 1).astype('<i2').tobytes()


def wav_header(sample_rate: int, size: int | None = None) -> bytes:
  """What stands before 16-bit PCM in a WAV file of one channel.

  Args:
    sample_rate: samples a second.
    size: bytes of PCM; None leaves it open, as players expect it of a stream.
  """
  size = _OPEN if size is None else size
  layout = 1, 1, sample_rate, 2 * sample_rate, 2, 16  # PCM, mono, bytes a second and a sample
  form = b'WAVEfmt ' + struct.pack('<IHHIIHH', 16, *layout)
  whole = min(size + len(form) + 8, _OPEN)
  return b'RIFF' + struct.pack('<I', whole) + form + b'data' + struct.pack('<I', size)


class WavWriter:
  """A 16-bit PCM WAV file that grows: after each `write` it is whole as it is.

  What cannot be gone back in, such as a pipe, gets a header that leaves the length open, as
  players expect it of a stream. Samples beyond full scale are clipped.
  """

  def __init__(self, path: str | os.PathLike, sample_rate: int):
    """Makes the file.

    Args:
      path: the file, whose folder must exist; or '-', the standard output.
      sample_rate: samples a second.

    Raises:
      AudioError: the rate is not one, or the file cannot be made.
    """
    _check_rate(sample_rate, 'sample_rate')
    self._path, self._rate, self._bytes = path, int(sample_rate), 0
    with self._explained():
      standard = str(path) == '-'
      where = sys.stdout.fileno() if standard else path
      self._file = io.BufferedWriter(io.FileIO(where, 'wb', closefd=not standard))
      self._fixed = self._file.seekable() and not standard
      self._put(wav_header(self._rate, 0 if self._fixed else None))

  def write(self, wave: np.ndarray) -> None:
    """Appends samples.

    Args:
      wave: `[S]` float32 samples.

    Raises:
      AudioError: the waveform is not one, or it cannot be written.
    """
    check_wave(wave, f'wave to write to {self._path}')
    content = pcm(wave)
    self._bytes += len(content)
    with self._explained():
      self._put(content)
      if self._fixed:
        self._file.seek(0)
        self._put(wav_header(self._rate, self._bytes))
        self._file.seek(0, os.SEEK_END)

  def close(self) -> None:
    """Ends the file."""
    with self._explained():
      self._file.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _put(self, content: bytes) -> None:
    self._file.write(content)
    self._file.flush()  # for those who listen meanwhile

  @contextlib.contextmanager
  def _explained(self):
    try:
      yield
    except OSError as error:
      raise AudioError(
        f'{self._path}: cannot be written ({error}); check that the folder exists and is'
        ' writable'
      ) from error


def write_wav(path: str | os.PathLike, wave: np.ndarray, sample_rate: int) -> None:
  """Writes a whole file with `WavWriter`.

  Args:
    path: the file to make; its folder must exist.
    wave: `[S]` float32 samples.
    sample_rate: samples a second.

  Raises:
    AudioError: the waveform is not one, or the file cannot be written.
  """
  check_wave(wave, f'wave to write to {path}')
  with WavWriter(path, sample_rate) as file:
    file.write(wave)


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
