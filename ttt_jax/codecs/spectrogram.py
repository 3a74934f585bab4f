"""Log-mel analysis of 16 kHz speech, and magnitudes from log-mels again.

Everything here is a pure function of its arguments: noise comes from a fixed seed. Frame t
of a spectrogram is centred on sample `t * HOP`, so a waveform of S samples has
`ceil(S / HOP)` frames.
"""

import functools

import numpy as np
import scipy.fft
import scipy.ndimage

SAMPLE_RATE = 16_000  # Hz
HOP = 160  # samples from frame to frame: 10 ms
WINDOW = 640  # samples under one window: 40 ms
NUM_MELS = 64
MEL_RANGE = (50.0, 7600.0)  # Hz: outer corners of the first and the last filter
LOG_FLOOR = -4.0  # natural log of mel magnitude at LEVEL below which all is called silence
LEVEL = 0.08  # root mean square over the loud part after `normalise_level`

_LEVEL_WINDOW = 400  # samples over which loudness is measured: 25 ms
_LOUD = 0.1  # the loud part: within 20 dB of the loudest window
_SILENT = 1e-4  # below -80 dB of full scale there is nothing to normalise
_NNLS_STEPS = 20
_TINY = 1e-9

# Periodic Hann window; every sample is under WINDOW / HOP = 4 of them.
_HANN = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


def stft(wave: np.ndarray) -> np.ndarray:
  """Short-time Fourier transform, unscaled.

  All frames in one call: scipy's ShortTimeFFT, which the tests hold this against, loops
  over frames in Python and takes ten times as long, and Griffin-Lim does little else.

  Args:
    wave: `[S]` samples.

  Returns:
    `[T, WINDOW // 2 + 1]` complex, T = ceil(S / HOP).
  """
  num_frames = -(-len(wave) // HOP)
  silence = np.zeros(WINDOW // 2 + num_frames * HOP - len(wave), wave.dtype)
  wave = np.concatenate([silence[: WINDOW // 2], wave, silence])
  frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP][:num_frames]
  return scipy.fft.rfft(frames * _HANN, axis=1)


def istft(spectrum: np.ndarray) -> np.ndarray:
  """The waveform whose `stft` is nearest to `spectrum` (in the least-squares sense).

  Args:
    spectrum: `[T, WINDOW // 2 + 1]` complex.

  Returns:
    `[T * HOP]` samples.
  """
  frames = scipy.fft.irfft(spectrum, WINDOW, axis=1) * _HANN
  kept = slice(WINDOW // 2, WINDOW // 2 + len(frames) * HOP)
  # The first and last samples are under fewer windows, so the weights are not constant.
  return _overlap_add(frames)[kept] / _window_power(len(frames))[kept]


def _overlap_add(frames: np.ndarray) -> np.ndarray:
  overlap = WINDOW // HOP
  parts = frames.reshape(len(frames), overlap, HOP)
  total = np.zeros((len(frames) + overlap - 1, HOP), frames.dtype)
  for k in range(overlap):
    total[k : k + len(frames)] += parts[:, k]
  return total.reshape(-1)


@functools.lru_cache(maxsize=256)
def _window_power(num_frames: int) -> np.ndarray:
  # Zero only at the very first sample of the padding, which is always cut away.
  return np.maximum(_overlap_add(np.tile(_HANN**2, (num_frames, 1))), _TINY)


@functools.cache
def mel_filters() -> np.ndarray:
  """Triangular filters, evenly spaced in mels (2595 log10(1 + f / 700)), with peaks at 1.

  Returns:
    `[NUM_MELS, WINDOW // 2 + 1]` float32: the weight of each FFT bin in each filter.
  """
  low, high = (2595 * np.log10(1 + np.asarray(MEL_RANGE) / 700)).tolist()
  corners = 700 * (10 ** (np.linspace(low, high, NUM_MELS + 2) / 2595) - 1)
  bins = np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW
  left, peak, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
  rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
  return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def log_mel(wave: np.ndarray) -> np.ndarray:
  """Natural log of mel magnitudes, floored at LOG_FLOOR.

  Args:
    wave: `[S]` samples at SAMPLE_RATE, normalised in level for the floor to mean much.

  Returns:
    `[T, NUM_MELS]` float32, T = ceil(S / HOP).
  """
  mels = np.abs(stft(wave)) @ mel_filters().T
  return np.maximum(np.log(np.maximum(mels, _TINY)), LOG_FLOOR).astype(np.float32)


def linear_magnitude(log_mels: np.ndarray) -> np.ndarray:
  """Magnitudes of FFT bins, none negative, whose mels are nearest to those given.

  Starts at the pseudo-inverse and takes multiplicative (Lee and Seung) steps, which keep
  the magnitudes positive.

  Args:
    log_mels: `[T, NUM_MELS]` as `log_mel` makes them.

  Returns:
    `[T, WINDOW // 2 + 1]` float32.
  """
  filters = mel_filters()
  # What sits on the floor was cut there: it is silence, not a sound at the floor's level.
  target = np.where(log_mels <= LOG_FLOOR + 0.05, 0, np.exp(log_mels)).astype(np.float32)
  magnitude = np.maximum(target @ np.linalg.pinv(filters).T, 1e-5)
  wanted = target @ filters + _TINY
  for _ in range(_NNLS_STEPS):
    magnitude *= wanted / ((magnitude @ filters.T) @ filters + _TINY)
  return magnitude.astype(np.float32)


def loudness(wave: np.ndarray) -> np.ndarray:
  """Root mean square of the 25 ms around every sample.

  Args:
    wave: `[S]` samples.

  Returns:
    `[S]`, not negative.
  """
  power = scipy.ndimage.uniform_filter1d(np.square(wave), _LEVEL_WINDOW, mode='constant')
  return np.sqrt(np.maximum(power, 0))


def normalise_level(wave: np.ndarray) -> np.ndarray:
  """Scales a waveform so that its loud part has the root mean square LEVEL.

  Measured over the loud part, the level does not depend on how much silence there is.

  Args:
    wave: `[S]` float32 samples.

  Returns:
    `[S]` float32 samples; unchanged where nothing rises above -80 dB of full scale.
  """
  if not wave.size:
    return wave
  level = loudness(wave)
  if level.max() < _SILENT:
    return wave
  loud = level > _LOUD * level.max()
  return (wave * (LEVEL / np.sqrt(np.mean(wave[loud] ** 2)))).astype(np.float32)


def comfort_noise(wave: np.ndarray, snr_db: float = 32.0, seed: int = 0) -> np.ndarray:
  """Adds white noise below speech, for listeners that stumble over digital silence.

  Args:
    wave: `[S]` float32 samples at the level that `normalise_level` gives.
    snr_db: how far below LEVEL the noise lies.
    seed: of the noise.

  Returns:
    `[S]` float32 samples.
  """
  noise = np.random.default_rng(seed).standard_normal(len(wave), np.float32)
  return wave + np.float32(LEVEL * 10 ** (-snr_db / 20)) * noise
