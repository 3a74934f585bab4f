"""Sound files that are read piece by piece, so that their length does not matter."""

import os
from collections.abc import Iterator

import numpy as np
import soxr

from ttt_jax.codecs import audio_io

_SECONDS = 10  # of a piece


def read(path: str | os.PathLike, sample_rate: int) -> Iterator[np.ndarray]:
  """Reads a sound file of any length, in any format that libsndfile knows.

  Args:
    path: the file.
    sample_rate: samples a second wanted.

  Yields:
    `[S]` float32 samples at `sample_rate`, channels averaged; S may be 0. Joined, they are what
    `audio_io` reads and resamples whole.

  Raises:
    AudioError: the file is missing, empty, not a sound file, or holds no usable samples.
  """
  with audio_io.opened(path) as file:
    resampler, total, more = None, 0, True
    if file.samplerate != sample_rate:
      resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype='float32')
    while more:
      # What a header tells of the length may be a guess: the end is where no more comes.
      samples = file.read(_SECONDS * file.samplerate, dtype='float32', always_2d=True)
      wave, more = samples.mean(axis=1, dtype=np.float32), len(samples) > 0
      total += len(wave)
      if more or not total:
        audio_io.check_wave(wave, str(path))
      yield wave if resampler is None else resampler.resample_chunk(wave, last=not more)
