"""Phases for magnitudes, frame by frame: speech that can be heard before all is known.

The fast Griffin-Lim algorithm (Perraudin, Balazs and Sondergaard 2013) runs on a window that
moves along the frames: those before it are final, as in Zhu, Beauregard and Wyse (2007), and
some after it, which are known but not yet given out, let it look ahead. What was given out
never changes, and does not depend on how the frames were cut when they were given.
"""

import numpy as np

from ttt_jax.codecs import spectrogram

_COMMIT = 4  # frames that become final together
_AHEAD = 12  # frames behind them that are worked on meanwhile: 120 ms
_STEPS = 12  # on every window; a frame is in four of them
_MOMENTUM = 0.99
_TINY = 1e-9
_SEED = 0  # of the phases at the start
_OVERLAP = spectrogram.WINDOW // spectrogram.HOP  # frames that share a sample
_HALF = _OVERLAP // 2  # frames that must follow a hop's own before its samples are whole


class GriffinLim:
  """Speech with given magnitudes; `push` them, then `flush`."""

  def __init__(self, steps: int = _STEPS):
    """Begins with silence.

    Args:
      steps: how often the phases of every window are made consistent.
    """
    self._steps = steps
    self._reset()

  def _reset(self) -> None:
    nothing = np.zeros((0, spectrogram.WINDOW // 2 + 1), np.complex64)
    self._turns = np.random.default_rng(_SEED)
    self._known = nothing.real  # magnitudes of frames that are not final
    self._phase = self._before = nothing  # of the first of these, as far as worked on
    self._final = nothing  # the last frames before them

  def push(self, magnitude: np.ndarray) -> np.ndarray:
    """The samples that are final once these frames are known too.

    Args:
      magnitude: `[T, WINDOW // 2 + 1]` float32, not negative; T may be 0.

    Returns:
      `[S]` float32 samples; about 160 ms behind.
    """
    self._known = np.concatenate([self._known, magnitude])
    parts = [np.zeros(0, np.float32)]
    while len(self._known) >= _COMMIT + _AHEAD:
      parts.append(self._commit())
    return np.concatenate(parts)

  def flush(self) -> np.ndarray:
    """The samples that are still to come; what is pushed later is another sound.

    Returns:
      `[S]` float32 samples: in all, `HOP` for each frame.
    """
    parts = [np.zeros(0, np.float32)]
    while len(self._known):
      parts.append(self._commit())
    # The samples under the last frames, which wait for frames that never came.
    tail = spectrogram.istft(self._final)
    parts.append(tail[max(0, len(tail) - _HALF * spectrogram.HOP) :])
    self._reset()
    return np.concatenate(parts)

  def _commit(self) -> np.ndarray:
    """Makes the first known frames final; the samples that this makes whole."""
    final, magnitude = self._final, self._known[: _COMMIT + _AHEAD]
    turns = self._turns.random((len(magnitude) - len(self._phase), magnitude.shape[1]), 'f4')
    phase = np.concatenate([self._phase, np.exp(2j * np.pi * turns).astype(np.complex64)])
    before = np.concatenate([self._before, np.zeros_like(turns)])
    for _ in range(self._steps):
      joined = np.concatenate([final, magnitude * phase])
      now = spectrogram.stft(spectrogram.istft(joined))[len(final) :]
      pushed = now - _MOMENTUM / (1 + _MOMENTUM) * before
      phase, before = pushed * (1 / (np.abs(pushed) + _TINY)), now
    joined = np.concatenate([final, (magnitude * phase)[:_COMMIT]])
    self._known, self._final = self._known[_COMMIT:], joined[1 - _OVERLAP :]
    self._phase, self._before = phase[_COMMIT:], before[_COMMIT:]
    # Whole now: the samples under frames of which the first is before, the last among these.
    first = max(0, len(final) - _HALF) * spectrogram.HOP
    last = max(0, len(joined) - _HALF) * spectrogram.HOP
    return spectrogram.istft(joined)[first:last].astype(np.float32, copy=False)
