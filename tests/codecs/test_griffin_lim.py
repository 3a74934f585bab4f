import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax.codecs import griffin_lim, spectrogram


def _speechlike(num_frames, seed=0):
  """Harmonics of a gliding pitch, and noise: magnitudes of `num_frames` frames."""
  rng = np.random.default_rng(seed)
  size = num_frames * spectrogram.HOP
  pitch = 2 * np.pi * np.cumsum(np.linspace(100, 180, size)) / spectrogram.SAMPLE_RATE
  wave = sum(np.sin(k * pitch) / k for k in range(1, 20)) * np.hanning(size)
  wave = 0.1 * wave + 0.003 * rng.standard_normal(size)
  return np.abs(spectrogram.stft(wave.astype(np.float32)))


def _whole(magnitude, **options):
  phases = griffin_lim.GriffinLim(**options)
  return np.concatenate([phases.push(magnitude), phases.flush()])


def _plain(magnitude, steps, seed):
  """The algorithm on all frames together, by scipy's transforms."""
  window = scipy.signal.get_window('hann', spectrogram.WINDOW, fftbins=True)
  rate = spectrogram.SAMPLE_RATE
  transform = scipy.signal.ShortTimeFFT(window, spectrogram.HOP, rate, phase_shift=None)
  size = len(magnitude) * spectrogram.HOP

  def inverse(spectrum):  # scipy wants the frames too that only touch the wave
    around = (-transform.p_min, transform.p_max(size) - len(magnitude))
    return transform.istft(np.pad(spectrum, (around, (0, 0))).T, k1=size)

  phase = np.exp(2j * np.pi * np.random.default_rng(seed).random(magnitude.shape))
  before = 0
  for _ in range(steps):
    now = transform.stft(inverse(magnitude * phase), p0=0, p1=len(magnitude)).T
    phase = np.exp(1j * np.angle(now - 0.99 / 1.99 * before))
    before = now
  return inverse(magnitude * phase)


def _error(wave, magnitude):
  found = np.abs(spectrogram.stft(wave))
  return np.linalg.norm(found - magnitude) / np.linalg.norm(magnitude)


def test_it_is_as_near_to_the_magnitudes_as_with_all_of_them_at_hand():
  magnitude = _speechlike(150)
  error = _error(_whole(magnitude), magnitude)
  assert error < 1.1 * min(_error(_plain(magnitude, 32, seed), magnitude) for seed in range(3))
  assert error < 0.3 * _error(_whole(magnitude, steps=0), magnitude)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 25), max_size=6))
def test_the_cutting_makes_no_difference(sizes):
  magnitude = _speechlike(max(1, sum(sizes)))[: sum(sizes)]
  phases = griffin_lim.GriffinLim(steps=2)
  parts = [phases.push(part) for part in np.split(magnitude, np.cumsum(sizes))]
  wave = np.concatenate([*parts, phases.flush()])
  assert wave.dtype == np.float32 and len(wave) == sum(sizes) * spectrogram.HOP
  np.testing.assert_array_equal(wave, _whole(magnitude, steps=2))


@pytest.mark.parametrize('num_frames', [1, 2, 3, 4, 5, 16, 17, 90])
def test_pieces_are_cut_from_one_wave(num_frames):
  """With phases left as they are drawn, the wave is one inverse transform of all frames."""
  magnitude = _speechlike(num_frames)
  turns = np.random.default_rng(0).random(magnitude.shape, np.float32)
  expected = spectrogram.istft(magnitude * np.exp(2j * np.pi * turns))
  np.testing.assert_allclose(_whole(magnitude, steps=0), expected, atol=1e-5)
