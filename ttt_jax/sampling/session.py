"""A trained model, ready to be talked with."""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import chat, checkpoint
from ttt_jax import config as config_lib
from ttt_jax.codecs import audio_io
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder


class Reply(NamedTuple):
  """An answer, in the forms that people use.

  Attributes:
    text: all its text.
    wave: float32 [S], all its audio; empty if there is none.
    complete: false where a limit ended it.
  """

  text: str
  wave: np.ndarray
  complete: bool


class Session:
  """One model in memory; see `load`."""

  def __init__(
    self, config: config_lib.Config, assets: assets_lib.Assets, params, seed: int = 0
  ):
    """Takes a model apart from any folder."""
    self.config, self.assets, self.params, self.seed = config, assets, params, seed
    if config.sampling.guidance and not config.objective.condition_dropout:
      logging.warning(
        'sampling.guidance is %g, but the model was trained with '
        'objective.condition_dropout=0: what it says without a condition is no guide',
        config.sampling.guidance,
      )
    self.model = transformer.Transformer(config.model, assets.vocabulary.size)
    self.decoder = decoder.Decoder(
      self.model, params, assets.vocabulary, config.sampling, config.mask
    )

  @classmethod
  def load(
    cls,
    workdir: str | pathlib.Path,
    sampling: config_lib.Sampling | None = None,
    seed: int = 0,
  ) -> 'Session':
    """The latest checkpoint of the run in `workdir`.

    Args:
      workdir: folder of the run.
      sampling: replaces the run's own settings of decoding.
      seed: for drawing, where the temperature is above 0.

    Raises:
      UserError: there is no such run, or its files do not fit each other.
    """
    config = checkpoint.load_config(workdir)
    if sampling is not None:
      config = dataclasses.replace(config, sampling=sampling)
    assets = assets_lib.load(pathlib.Path(workdir, assets_lib.DIRECTORY))
    return cls(config, assets, checkpoint.restore_params(workdir), seed)

  def speak(self, text: str, voice: int = 0) -> Reply:
    """Says `text`."""
    return self._reply(assets_lib.SPEAK, text, voice)

  def transcribe(self, wave: np.ndarray, sample_rate: int) -> Reply:
    """Writes down what is said in `wave`, float32 [S]."""
    return self._reply(assets_lib.TRANSCRIBE, self._codes(wave, sample_rate), 0)

  def ask(self, wave: np.ndarray, sample_rate: int, voice: int = 0) -> Reply:
    """Answers the question that is spoken in `wave`, float32 [S]."""
    return self._reply(assets_lib.ANSWER, self._codes(wave, sample_rate), voice)

  def _codes(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
    audio_io.check_wave(wave, 'the recording')
    return self.assets.codec.encode(wave, sample_rate)

  def _reply(self, task: str, user: str | np.ndarray, voice: int) -> Reply:
    system = self.assets.prompt(task, voice)
    template = self.assets.template
    prompt = template.prompt([chat.Turn('system', [system]), chat.Turn('user', [user])])
    (answer,) = self.decoder([prompt], [self.seed])
    parts = template.parts(answer.tokens)
    text = ''.join(part for part in parts if isinstance(part, str))
    codes = [part for part in parts if not isinstance(part, str)]
    wave = [self.assets.codec.decode(part) for part in codes]
    return Reply(text, np.concatenate([np.zeros(0, np.float32), *wave]), answer.complete)
