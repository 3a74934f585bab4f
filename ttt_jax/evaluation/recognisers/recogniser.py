"""What every recogniser does: a waveform to the words in it."""

import abc
from collections.abc import Sequence
from typing import Self

import numpy as np

from ttt_jax import errors
from ttt_jax.codecs import audio_io


class RecogniserError(errors.UserError):
  """A recogniser cannot be had, or not with what it was given."""


class Recogniser(abc.ABC):
  """An independent listener.

  Attributes:
    kind: the name under which `kinds.make` finds the class.
    fingerprint: of what it was made of beside its name and the texts, such as a file that may
      change; what is heard under another fingerprint is heard anew.
  """

  kind: str
  fingerprint = ''

  @classmethod
  @abc.abstractmethod
  def make(cls, argument: str, texts: Sequence[str]) -> Self:
    """A listener for one kind of utterance.

    Args:
      argument: what stands behind the colon of 'kind:argument'; '' without one.
      texts: all that should be said. Who listens in a closed vocabulary makes it of these;
        others may pass them over.

    Raises:
      RecogniserError: says what is missing, or cannot be.
    """

  @abc.abstractmethod
  def _hear(self, wave: np.ndarray, sample_rate: int) -> str:
    """The words in `[S]` float32 checked samples, S > 0."""

  def hear(self, wave: np.ndarray, sample_rate: int) -> str:
    """Listens to one utterance; what it hears does not depend on those before.

    Args:
      wave: `[S]` float32 samples; S may be 0.
      sample_rate: samples a second.

    Returns:
      The words, separated by blanks; '' for no sound, or where nothing is understood.

    Raises:
      AudioError: `wave` is not a waveform.
    """
    if isinstance(wave, np.ndarray) and wave.shape == (0,):
      return ''
    audio_io.check_wave(wave)
    return self._hear(wave, sample_rate)
