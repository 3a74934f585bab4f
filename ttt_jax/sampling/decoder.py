"""Hybrid decoding of a batch of prompts, without a cache: plain, and the reference.

Rows in text and rows in audio advance together: each call of the network serves one token
of the former and one diffusion step of the latter.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import transformer
from ttt_jax.sampling import dialogue as dialogue_lib
from ttt_jax.sampling import draw

_TOGETHER = 128  # prompts that are answered at a time
_LENGTH_MULTIPLE = 64  # rows are padded to it, so that few shapes are compiled


class Answer(NamedTuple):
  """What the model said.

  Attributes:
    tokens: int32 [n], text and audio, ends and begins included.
    complete: false where a limit of `config.Sampling` ended it or a span of it.
  """

  tokens: np.ndarray
  complete: bool


class Decoder:
  """Answers prompts with one set of parameters."""

  def __init__(
    self,
    model: transformer.Transformer,
    params: Any,
    vocabulary: vocabulary_lib.Vocabulary,
    sampling: config_lib.Sampling,
    mask: config_lib.Mask,
  ):
    """Compiles nothing yet."""
    self._params, self._vocabulary = params, vocabulary
    self._sampling, self._mask = sampling, mask

    def predict(params, inputs, kv_end, query, audio, seeds, counts):
      positions = jnp.broadcast_to(jnp.arange(inputs.shape[1]), inputs.shape)
      hidden = model.apply(
        {'params': params},
        *(inputs, positions, jnp.zeros_like(kv_end), kv_end),
        method='hidden',
      )
      picked = jnp.take_along_axis(hidden, query[..., None], 1)
      logits = model.apply({'params': params}, picked, method='unembed')
      logits = draw.restrict(logits, audio[:, None], vocabulary)
      keys = jax.vmap(lambda s, n: jax.random.fold_in(jax.random.key(s), n))(seeds, counts)
      return draw.draw(logits, keys, sampling.temperature)

    self._predict = jax.jit(predict)

  def __call__(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int] | None = None
  ) -> list[Answer]:
    """Answers each prompt (int [n]); what one is told does not depend on the others.

    Args:
      prompts: conversations up to where the model is to speak.
      seeds: one a prompt, for drawing; by default their numbers.
    """
    seeds = range(len(prompts)) if seeds is None else seeds
    answers = []
    for first in range(0, len(prompts), _TOGETHER):
      chosen = slice(first, first + _TOGETHER)
      answers += self._answer(prompts[chosen], seeds[chosen])
    return answers

  def _answer(self, prompts: Sequence[np.ndarray], seeds: Sequence[int]) -> list[Answer]:
    rows = [
      dialogue_lib.Dialogue(prompt, self._vocabulary, self._sampling, self._mask)
      for prompt in prompts
    ]
    live, count = list(range(len(rows))), 0
    while live:
      self._advance([rows[i] for i in live], [seeds[i] for i in live], count)
      live, count = [i for i in live if not rows[i].done], count + 1
    return [Answer(row.answer, row.complete) for row in rows]

  def _advance(self, rows: list, seeds: list[int], count: int) -> None:
    views = [row.view() for row in rows]
    longest = max(len(tokens) for tokens, _ in views)
    length = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    size = 1 << (len(rows) - 1).bit_length()
    inputs, kv_end = np.zeros((2, size, length), np.int32)
    query = np.zeros((size, self._sampling.block_size), np.int32)
    audio, row_seeds = np.zeros(size, bool), np.zeros(size, np.uint32)
    for i, (row, (tokens, ends)) in enumerate(zip(rows, views)):
      inputs[i, : len(tokens)], kv_end[i, : len(tokens)] = tokens, ends
      query[i], audio[i], row_seeds[i] = row.query(), row.in_audio, seeds[i]
    counts = np.full(size, count, np.int32)
    ids, confidence = jax.device_get(
      self._predict(self._params, inputs, kv_end, query, audio, row_seeds, counts)
    )
    for i, row in enumerate(rows):
      row.advance(ids[i], confidence[i])
