"""Decoding as plainly as it can be put: no cache, and the bookkeeping in Python.

Each call of the network reads everything again. What the decoder says must be this, token
for token.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.sampling import draw, events

_LENGTH_MULTIPLE = 128  # rows are padded to it, so that few shapes are compiled


def share(block_size: int, steps: int, step: int) -> int:
  """Tokens that step `step` (from 0) of `steps` reveals: the block in equal parts."""
  return block_size * (step + 1) // steps - block_size * step // steps


def foremost(priority: np.ndarray, masked: np.ndarray, count: int) -> np.ndarray:
  """The `count` masked positions of highest priority, int [<= count]."""
  order = np.argsort(np.where(masked, -priority, np.inf), kind='stable')
  return order[: min(count, int(masked.sum()))]


class Dialogue:
  """A prompt and the answer to it, so far.

  Attributes:
    tokens: list of ids, masks of the current block included.
    done: the answer has ended.
    complete: it ended by itself; false where a limit ended it or a span of it.
  """

  def __init__(self, prompt, vocabulary: vocabulary_lib.Vocabulary, sampling, mask):
    """Starts behind `prompt` (int [n], not empty): in audio if it ends by beginning some."""
    self._vocabulary, self._sampling, self._mask = vocabulary, sampling, mask
    self.tokens = [int(i) for i in prompt]
    self._prompt_length = len(self.tokens)
    self._text_left = sampling.max_text
    self._span: int | None = None  # where the current span begins; None in text
    self._block = 0  # where the current block begins
    self._step = 0  # diffusion steps done in it
    self.done, self.complete = False, True
    self._begins = (vocabulary.begin_audio, vocabulary.begin_last)
    if self.tokens[-1] in self._begins:
      self._open_span()

  @property
  def answer(self) -> np.ndarray:
    """int32 [n], what follows the prompt."""
    return np.array(self.tokens[self._prompt_length :], np.int32)

  @property
  def in_audio(self) -> bool:
    """Whether audio is wanted next."""
    return self._span is not None

  def query(self) -> np.ndarray:
    """The positions whose predictions are wanted next: int [block_size].

    In text the last position stands in all places.
    """
    size = self._sampling.block_size
    if self._span is None:
      return np.full(size, len(self.tokens) - 1)
    return np.arange(self._block, self._block + size)

  def view(self) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and `kv_end`, int32 [n] each: what the network reads (`kv_start` is 0)."""
    tokens = np.array(self.tokens, np.int32)
    spans = self._vocabulary.spans(tokens)
    groups = mask_lib.document_groups(tokens, spans, self._mask, self._vocabulary)
    return tokens, mask_lib.group_ends(groups)

  def bare(self) -> np.ndarray:
    """Tokens as they are read without condition: of all but response audio only masks."""
    v, tokens, out = self._vocabulary, self.tokens, [self._vocabulary.mask] * len(self.tokens)
    for start, end in v.spans(np.array(tokens)):
      if v.end_prompt not in (tokens[end - 1], *tokens[end : end + 1]):
        begins = start > 0 and tokens[start - 1] in self._begins
        out[start - begins : end] = tokens[start - begins : end]
    return np.array(out, np.int32)

  def advance(self, ids: np.ndarray, priority: np.ndarray) -> None:
    """Takes the predictions at `query()`: int and float [block_size]."""
    if self._span is None:
      self._write(int(ids[0]))
    else:
      self._reveal(ids, priority)

  def _write(self, token: int) -> None:
    self.tokens.append(token)
    self._text_left -= 1
    if token == self._vocabulary.turn_end:
      self.done = True
    elif self._text_left <= 0:
      self.done, self.complete = True, False
    elif token in self._begins:
      self._open_span()

  def _open_span(self) -> None:
    self._span = len(self.tokens)
    self._open_block()

  def _open_block(self) -> None:
    self._block, self._step = len(self.tokens), 0
    self.tokens += [self._vocabulary.mask] * self._sampling.block_size

  def _reveal(self, ids: np.ndarray, priority: np.ndarray) -> None:
    sampling = self._sampling
    block = np.array(self.tokens[self._block :])
    masked = block == self._vocabulary.mask
    steps = min(sampling.steps_per_block, sampling.block_size)
    count = share(sampling.block_size, steps, self._step)
    if sampling.threshold:
      count = max(1, (masked & (priority > sampling.threshold)).sum())
    chosen = foremost(priority, masked, count)
    block[chosen] = ids[chosen]
    self.tokens[self._block :] = block.tolist()
    self._step += 1
    if not (block == self._vocabulary.mask).any():
      self._close_block(block)

  def _close_block(self, block: np.ndarray) -> None:
    ends = np.flatnonzero(self._vocabulary.is_end(block))
    if len(ends):
      del self.tokens[self._block + ends[0] + 1 :]
      self._span = None
    elif len(self.tokens) - self._span + self._sampling.block_size > self._sampling.max_audio:
      last = self.tokens[self._span - 1] == self._vocabulary.begin_last
      self.tokens.append(self._vocabulary.end_last if last else self._vocabulary.end_inner)
      self._span, self.complete = None, False
    else:
      self._open_block()


class Decoder:
  """As `decoder.Decoder`."""

  def __init__(self, model, params, vocabulary, sampling, mask):
    self._params, self._settings = params, (vocabulary, sampling, mask)

    def network(params, inputs, kv_end, query):
      positions = jnp.broadcast_to(jnp.arange(inputs.shape[1]), inputs.shape)
      hidden = model.apply(
        {'params': params},
        *(inputs, positions, jnp.zeros_like(kv_end), kv_end),
        method='hidden',
      )
      picked = jnp.take_along_axis(hidden, query[..., None], 1)
      return model.apply({'params': params}, picked, method='unembed')

    def predict(params, inputs, bare, kv_end, query, audio, seeds, counts):
      logits = network(params, inputs, kv_end, query)
      if sampling.guidance:
        without = network(params, bare, kv_end, query)
        guided = (1 + sampling.guidance) * logits - sampling.guidance * without
        logits = jnp.where(audio[:, None, None], guided, logits)
      logits = draw.restrict(logits, audio[:, None], vocabulary)
      of_text, of_audio = sampling.text_temperature, sampling.audio_temperature
      temperature = jnp.where(audio, of_audio, of_text)
      return draw.draw(logits, draw.keys(seeds, counts, query.shape[1]), temperature, sampling)

    self._predict = jax.jit(predict)

  def __call__(self, prompts, seeds=None) -> list[events.Answer]:
    """Answers each prompt."""
    seeds = range(len(prompts)) if seeds is None else seeds
    rows = [Dialogue(prompt, *self._settings) for prompt in prompts]
    count = 0
    while not all(row.done for row in rows):
      self._advance(rows, seeds, count)
      count += 1
    return [events.Answer(row.answer, row.complete) for row in rows]

  def _advance(self, rows: list, seeds: list[int], count: int) -> None:
    views = [row.view() for row in rows]
    longest = max(len(tokens) for tokens, _ in views)
    length = -(-longest // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    size = len(rows)
    inputs, bare, kv_end = np.zeros((3, size, length), np.int32)
    query = np.zeros((size, len(rows[0].query())), np.int32)
    audio, row_seeds = np.zeros(size, bool), np.zeros(size, np.uint32)
    for i, (row, (tokens, ends)) in enumerate(zip(rows, views)):
      inputs[i, : len(tokens)], kv_end[i, : len(tokens)] = tokens, ends
      bare[i, : len(tokens)] = row.bare()
      query[i], audio[i], row_seeds[i] = row.query(), row.in_audio, seeds[i]
    counts = np.full(size, count, np.int32)
    ids, priority = jax.device_get(
      self._predict(self._params, inputs, bare, kv_end, query, audio, row_seeds, counts)
    )
    for i, row in enumerate(rows):
      if not row.done:
        row.advance(ids[i], priority[i])
