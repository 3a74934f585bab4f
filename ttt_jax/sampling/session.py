"""A trained model, ready to be talked with."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax.codecs import audio_io
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder, trained
from ttt_jax.sampling import pieces as pieces_lib

Recording = tuple[np.ndarray, int]


class Reply(NamedTuple):
  """An answer, in the forms that people use.

  Attributes:
    text: all its text.
    wave: float32 [S], all its audio; empty if there is none, or no sound was wanted.
    complete: false where a limit ended it.
    codes: int32 [T], the codes of each span of audio.
  """

  text: str
  wave: np.ndarray
  complete: bool
  codes: list[np.ndarray]


def makes_sound(task: str) -> bool:
  """Whether what a task answers is to be heard, and not just read."""
  return task != assets_lib.TRANSCRIBE


class Session:
  """One model in memory; see `load`.

  It is asked by a task of `assets` and what the user says: text, or a recording and its
  sample rate, as `audio_io.read_wav` gives them.

      session = Session.load('runs/quickstart/run')
      session.reply('transcribe', audio_io.read_wav('in.wav')).text
      for piece in session.stream('speak', 'three seven one'):
        play(piece.wave)
  """

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
    config, assets, _, params = trained.load(workdir)
    if sampling is not None:
      config = dataclasses.replace(config, sampling=sampling)
    return cls(config, assets, params, seed)

  def reply(
    self, task: str, said: str | Recording, voice: int = 0, sound: bool = True
  ) -> Reply:
    """The whole answer.

    Args:
      task: SPEAK, TRANSCRIBE or ANSWER of `assets`.
      said: text, or float32 [S] samples and their rate.
      voice: for tasks that speak.
      sound: whether sound is made of what a task says; of TRANSCRIBE it never is. Without it
        any codec will do.

    Raises:
      UserError: the model knows no such task or voice, its codec cannot do what is needed, or
        the recording is none or too long.
    """
    sound = sound and makes_sound(task)
    prompt = self.prompt(task, said, voice, 'decode' if sound else None)
    (answer,) = self.decoder([prompt], [self.seed])
    parts = self.assets.template.parts(answer.tokens)
    text = ''.join(part for part in parts if isinstance(part, str))
    codes = [part for part in parts if not isinstance(part, str)]
    wave = [self.assets.codec.decode(part) for part in codes if sound]
    whole = np.concatenate([np.zeros(0, np.float32), *wave])
    return Reply(text, whole, answer.complete, codes)

  def stream(
    self, task: str, said: str | Recording, voice: int = 0, sound: bool = True
  ) -> Iterator[pieces_lib.Piece]:
    """The same answer, piece by piece as it becomes final; `reply` has the arguments."""
    sound = sound and makes_sound(task)
    prompt = self.prompt(task, said, voice, 'stream' if sound else None)
    return self._stream(prompt, sound)

  def _stream(self, prompt: np.ndarray, sound: bool) -> Iterator[pieces_lib.Piece]:
    pieces = pieces_lib.Pieces(self.assets, sound)
    for event in self.decoder.stream(prompt, self.seed):
      yield from pieces.push(event)

  def prompt(
    self, task: str, said: str | Recording, voice: int = 0, ability: str | None = None
  ) -> np.ndarray:
    """What the decoder answers, int32 [n]; `reply` has the other arguments.

    Args:
      task: see there.
      said: see there.
      voice: see there.
      ability: what the codec must be able to do with the answer, 'decode' or 'stream'; None
        where no sound is made of it.
    """
    system = self.assets.prompt(task, voice)
    if ability:
      self.assets.codec.require(ability)
    user = said if isinstance(said, str) else self._codes(*said)
    turns = [chat.Turn('system', [system]), chat.Turn('user', [user])]
    return self.assets.template.prompt(turns)

  def _codes(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
    audio_io.check_wave(wave, 'the recording')
    codec, limit = self.assets.codec, self.config.sampling.max_prompt
    codec.require('encode')
    seconds, longest = len(wave) / sample_rate, limit / codec.frame_rate
    if seconds > longest:  # before an hour is encoded in vain
      raise audio_io.AudioError(
        f'the recording lasts {seconds:.1f} s, but config.sampling.max_prompt, {limit} tokens, '
        f'has room for {longest:.1f} s at most: cut the recording'
      )
    return codec.encode(wave, sample_rate)
