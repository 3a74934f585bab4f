"""Stretches of sound files, read without the rest of the file."""

import pathlib
import struct
from typing import NamedTuple

import numpy as np
import soundfile

from ttt_jax.codecs import audio_io

_BLOCK = 2**16  # frames that are in memory with all their channels
_SLACK = 0.05  # seconds: annotations are rounded
_OPEN = 2**31 - 2**12  # lengths from here on mean that the writer did not know it
# Forms whose header says how many bytes follow, which libsndfile does not hold them to.
_HEADERS = {b'RIFF': '<I', b'RIFX': '>I', b'FORM': '>I'}


class Clip(NamedTuple):
  """A stretch of a sound file.

  Attributes:
    path: of the file.
    start: where it begins, in seconds.
    end: where it ends; None is the end of the file.
  """

  path: pathlib.Path
  start: float = 0.0
  end: float | None = None


def read(clip: Clip, max_seconds: float) -> tuple[np.ndarray, int]:
  """The samples of a clip, `[S]` float32 with the channels averaged, and their rate in Hz.

  Raises:
    AudioError: the file is missing, truncated or no sound file; or the clip lies beyond its
      end, is longer than `max_seconds`, is empty, or holds NaN.
  """
  path = clip.path
  try:
    _refuse_truncated(path)
    with soundfile.SoundFile(path) as file:
      first, count = _frames(clip, file.frames, file.samplerate, max_seconds)
      file.seek(first)
      wave, rate = _mono(file, count), file.samplerate
  except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: headerless
    raise audio_io.AudioError(f'is no sound file that can be read ({error})') from error
  if len(wave) < count:
    raise audio_io.AudioError(
      f'is truncated: of {count} frames from {clip.start} s on, {len(wave)} are there'
    )
  audio_io.check_wave(wave, 'the sound')
  return wave, int(rate)


def _frames(clip: Clip, frames: int, rate: int, max_seconds: float) -> tuple[int, int]:
  """Where a clip begins and how many frames it has."""
  seconds = frames / rate
  end = seconds if clip.end is None else clip.end
  if frames and (clip.start >= seconds or end > seconds + _SLACK):
    raise audio_io.AudioError(
      f'has {seconds:.3f} s: the stretch from {clip.start} to {end} s goes beyond them'
    )
  if end - clip.start > max_seconds:
    raise audio_io.AudioError(
      f'is to be read from {clip.start:.3f} to {end:.3f} s, but only {max_seconds:.3f} s are '
      'left of what one record may have: give shorter stretches by "start" and "end"'
    )
  first = round(clip.start * rate)
  return first, min(round(end * rate), frames) - first


def _mono(file: soundfile.SoundFile, count: int) -> np.ndarray:
  """The next `count` frames, or as many as there are, channels averaged."""
  wave, done = np.empty(count, np.float32), 0
  while done < count:
    block = file.read(min(_BLOCK, count - done), dtype='float32', always_2d=True)
    if not len(block):
      break
    wave[done : done + len(block)] = block.mean(axis=1, dtype=np.float32)
    done += len(block)
  return wave[:done]


def _refuse_truncated(path: pathlib.Path) -> None:
  """Raises AudioError if a header promises more than there is."""
  size = path.stat().st_size
  if not size:
    raise audio_io.AudioError('is empty (0 bytes)')
  with path.open('rb') as file:
    head = file.read(8)
  if head[:4] in _HEADERS and len(head) == 8:
    (promised,) = struct.unpack(_HEADERS[head[:4]], head[4:])
    if size - 8 < promised < _OPEN:
      raise audio_io.AudioError(
        f'is truncated: its header promises {promised + 8} bytes, {size} are there'
      )
