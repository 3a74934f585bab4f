"""Whisper's log-mels (arXiv 2212.04356, 2.2), of sounds of any length in windows of 30 s."""

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples from frame to frame: 10 ms
WINDOW = 400  # samples under one frame: 25 ms
NUM_MELS = 128
SECONDS = 30  # of a window
FLOOR = 1e-10  # power that is taken for silence
RANGE = 8.0  # decades below the loudest value of a window at which all is cut off

# Slaney's scale: even steps up to 1 kHz, even ratios above it.
_LINEAR_STEP = 200 / 3  # Hz a mel
_KNEE = 1000.0  # Hz
_RATIO = 27 / np.log(6.4)  # mels a factor of e


def windows(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Cuts a sound that comes in chunks into windows, and holds no more than one of them.

  Args:
    chunks: each `[S]` float32 samples at SAMPLE_RATE; S may be 0.

  Yields:
    `[SECONDS * SAMPLE_RATE]` samples; the last window is shorter, but not empty.
  """
  size = SECONDS * SAMPLE_RATE
  kept, held = [], 0
  for chunk in chunks:
    while held + len(chunk) >= size:
      cut = size - held
      yield np.concatenate([*kept, chunk[:cut]])
      chunk, kept, held = chunk[cut:], [], 0
    kept.append(chunk)
    held += len(chunk)
  if held:
    yield np.concatenate(kept)


@functools.cache
def filters() -> np.ndarray:
  """Triangles of equal area over Slaney's scale, from 0 Hz to half the sample rate.

  Returns:
    `[WINDOW // 2 + 1, NUM_MELS]` float32: the weight of each FFT bin in each filter.
  """
  knee = _KNEE / _LINEAR_STEP
  top = knee + _RATIO * np.log(SAMPLE_RATE / 2 / _KNEE)
  mels = np.linspace(0, top, NUM_MELS + 2)
  above = _KNEE * np.exp((np.maximum(mels, knee) - knee) / _RATIO)
  corners = np.where(mels < knee, mels * _LINEAR_STEP, above)
  bins = np.arange(WINDOW // 2 + 1)[:, None] * SAMPLE_RATE / WINDOW
  left, peak, right = corners[:-2], corners[1:-1], corners[2:]
  rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
  triangles = np.maximum(0, np.minimum(rising, falling))
  return (triangles * 2 / (right - left)).astype(np.float32)


def log_mel(wave: np.ndarray, multiple: int = HOP) -> np.ndarray:
  """Log-mels of one window, as the network wants them.

  The frames are those of the window with silence behind it. The end is mirrored behind that,
  not behind the sound, as it is where one window is a batch of its own.

  Args:
    wave: `[S]` float32 samples at SAMPLE_RATE, S > 0.
    multiple: the window is filled with silence to a multiple of so many samples; itself a
      multiple of HOP, above WINDOW / 2.

  Returns:
    `[frames, NUM_MELS]` float32, frames = S filled up / HOP.
  """
  wave = np.pad(wave, (0, -len(wave) % multiple))
  mirrored = np.pad(wave, WINDOW // 2, mode='reflect')
  frames = np.lib.stride_tricks.sliding_window_view(mirrored, WINDOW)[::HOP]
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW, dtype=np.float64) / WINDOW)
  # One frame more than whole hops, whose middle is the very end, is dropped.
  spectrum = scipy.fft.rfft(frames[:-1] * hann.astype(np.float32), axis=1)
  mels = (spectrum.real**2 + spectrum.imag**2) @ filters()
  decades = np.log10(np.maximum(mels, np.float32(FLOOR)))
  return (np.maximum(decades, decades.max() - np.float32(RANGE)) + 4) / 4
