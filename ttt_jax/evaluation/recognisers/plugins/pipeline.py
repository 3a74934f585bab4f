"""Any pipeline for speech recognition of transformers: 'transformers:MODEL'.

MODEL is a folder, or a name that transformers downloads.
"""

import hashlib
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import transformers

from ttt_jax.codecs import audio_io
from ttt_jax.evaluation.recognisers import recogniser


class Pipeline(recogniser.Recogniser):
  """Hears with an open vocabulary, on torch's default device.

  Attributes:
    fingerprint: of the model's parameters.
  """

  kind = 'transformers'

  def __init__(self, pipeline: transformers.Pipeline):
    """Takes a pipeline for 'automatic-speech-recognition'."""
    self._pipeline, digest = pipeline, hashlib.sha256()
    for name, tensor in sorted(pipeline.model.state_dict().items()):
      digest.update(name.encode())
      digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy())
    self.fingerprint = digest.hexdigest()

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
