"""Hybrid decoding with an exact cache, for many prompts together."""

import collections
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from jax.sharding import Mesh

from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import transformer
from ttt_jax.sampling import events, passes, places, rows


class Decoder:
  """Answers prompts with one set of parameters.

  Attributes:
    compiled: the `passes.Shape` of everything that was compiled so far.
    passes: how often the network was run so far.
  """

  def __init__(
    self,
    model: transformer.Transformer,
    params: Any,
    vocabulary: vocabulary_lib.Vocabulary,
    sampling: config_lib.Sampling,
    mask: config_lib.Mask,
    mesh: Mesh | None = None,
  ):
    """Compiles nothing yet; the arguments are those of `passes.Passes`."""
    self._vocabulary, self._sampling = vocabulary, sampling
    self._passes = passes.Passes(model, params, vocabulary, sampling, mask, mesh)

  def with_params(self, params: Any) -> Self:
    """A decoder of other parameters, that lie as these do; it shares what was compiled."""
    other = copy.copy(self)
    other._passes = self._passes.with_params(params)
    return other

  @property
  def compiled(self) -> list[passes.Shape]:
    """The shape of everything that was compiled so far."""
    return self._passes.compiled

  @property
  def passes(self) -> int:
    """How often the network was run so far."""
    return self._passes.count

  def __call__(
    self,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[int] | None = None,
    settings: Sequence[config_lib.Sampling] | None = None,
  ) -> list[events.Answer]:
    """Answers each prompt. What is drawn for one does not depend on the others.

    Its logits do by rounding: shapes depend on who is asked beside it. In float32 answers are
    the same all the same; in bfloat16 a near tie may go the other way.

    Args:
      prompts: int [n] each, conversations up to where the model is to speak.
      seeds: one a prompt, for drawing; by default their numbers.
      settings: one a prompt, as `request` takes them.

    Raises:
      VocabularyError, ConfigError: as of `request`.
    """
    answers = dict(self.answer(prompts, seeds, settings))
    return [answers[number] for number in range(len(prompts))]

  def answer(
    self,
    prompts: Sequence[np.ndarray],
    seeds: Sequence[int] | None = None,
    settings: Sequence[config_lib.Sampling] | None = None,
  ) -> Iterator[tuple[int, events.Answer]]:
    """As a call, but gives the number of each prompt and its answer as soon as that ends."""
    seeds = range(len(prompts)) if seeds is None else seeds
    settings = [None] * len(prompts) if settings is None else settings
    waiting = collections.deque(
      (number, self.request(*asked, f'prompt {number}'))
      for number, asked in enumerate(zip(prompts, seeds, settings))
    )
    longest = max(map(len, prompts), default=0)
    under_way = self.places(1 << max(len(prompts) - 1, 0).bit_length(), longest)
    while waiting or len(under_way):
      under_way.admit([waiting.popleft() for _ in range(min(under_way.free, len(waiting)))])
      under_way.run(replace=bool(waiting))
      yield from under_way.ended()

  def stream(
    self, prompt: np.ndarray, seed: int = 0, settings: config_lib.Sampling | None = None
  ) -> Iterator[events.Event]:
    """Answers one prompt as it goes: all `tokens` together are those of a call, but for ends.

    Args:
      prompt: int [n].
      seed: for drawing.
      settings: as `request` takes them.

    Raises:
      VocabularyError, ConfigError: as of `request`.
    """
    request, under_way = self.request(prompt, seed, settings), self.places(1, len(prompt))
    under_way.admit([(None, request)])
    while len(under_way):
      yield from (event for _, event in under_way.events())
      under_way.run(limit=1)

  def places(self, most: int, longest: int) -> places.Places:
    """For requests that come one after the other.

    Args:
      most: how many answers at a time will do; `sampling.batch` is the most there are.
      longest: tokens of the longest prompt that is expected.
    """
    return places.Places(self._passes, min(self._sampling.batch, most), longest)

  def request(
    self,
    prompt: np.ndarray,
    seed: int = 0,
    settings: config_lib.Sampling | None = None,
    name: str = 'the prompt',
  ) -> rows.Request:
    """What `Places` take.

    Args:
      prompt: int [n].
      seed: for drawing.
      settings: those of the decoder by default, from which they may differ in
        `config.OF_A_REQUEST`.
      name: what messages call the prompt.

    Raises:
      VocabularyError: the prompt is empty, too long, or has an unknown token.
      ConfigError: the settings differ in something else, or the seed is no uint32.
    """
    self.check(prompt, name)
    if not 0 <= seed < 2**32:
      raise config_lib.ConfigError(f'{name}: its seed, {seed}, is not in 0..2**32 - 1')
    settings = self._sampling if settings is None else settings
    own = {key: getattr(self._sampling, key) for key in config_lib.OF_A_REQUEST}
    if dataclasses.replace(settings, **own) != self._sampling:
      raise config_lib.ConfigError(
        f'{name}: its settings differ from those of the decoder, {self._sampling}, in more '
        f'than {", ".join(config_lib.OF_A_REQUEST)}'
      )
    return rows.Request(prompt, seed, settings)

  def check(self, prompt: np.ndarray, name: str) -> None:
    """Raises VocabularyError, calling the prompt `name`, where it cannot be answered."""
    if not len(prompt):
      raise vocabulary_lib.VocabularyError(f'{name} is empty')
    self._vocabulary.check(prompt, name)
    if len(prompt) > self._sampling.max_prompt:
      raise vocabulary_lib.VocabularyError(
        f'{name} has {len(prompt)} tokens, which is more than '
        f'config.sampling.max_prompt, {self._sampling.max_prompt}'
      )
