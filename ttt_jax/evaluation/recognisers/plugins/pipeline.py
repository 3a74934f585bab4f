"""Any pipeline for speech recognition of transformers: 'transformers:MODEL'.

MODEL is a folder, or a name that transformers downloads.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
import transformers

from ttt_jax.codecs import audio_io
from ttt_jax.evaluation.recognisers import recogniser


class Pipeline(recogniser.Recogniser):
  """Hears with an open vocabulary, on torch's default device."""

  kind = 'transformers'

  def __init__(self, pipeline: transformers.Pipeline):
    """Takes a pipeline for 'automatic-speech-recognition'."""
    self._pipeline = pipeline

  @classmethod
  def make(cls, argument: str, texts: Sequence[str]) -> Self:
    """Loads the model `argument`; the texts make no difference.

    Raises:
      RecogniserError: no model is named, or it cannot be loaded.
    """
    del texts
    if not argument:
      raise recogniser.RecogniserError(
        "recogniser 'transformers' needs a model, say transformers:openai/whisper-tiny.en"
      )
    try:
      return cls(transformers.pipeline('automatic-speech-recognition', model=argument))
    except (OSError, ValueError, KeyError) as error:
      raise recogniser.RecogniserError(
        f'recogniser transformers:{argument} cannot be loaded: {error}'
      ) from error

  def _hear(self, wave: np.ndarray, sample_rate: int) -> str:
    rate = self._pipeline.feature_extractor.sampling_rate
    wave = audio_io.resample(wave, sample_rate, rate)
    return self._pipeline({'raw': wave, 'sampling_rate': rate})['text'].strip()
