"""Answers as they grow, row by row on the device: the state machine of text and audio.

Text is written left to right until a begin-of-audio token. Then masked blocks are appended
and revealed, until a finished block holds an end-of-audio token: what follows it in the
block is dropped, and text goes on, until the end of the turn.

What a token sees never changes once its order group is whole, so its keys and values are
final then: those of text at once, those of audio when its span is finished, or with block
attention when its blocks of the mask are. A pass of the network reads the rest, the window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ttt_jax import config as config_lib
from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import corruption
from ttt_jax.sampling import reveal

_NEVER = 2**30  # a position beyond all


class Request(NamedTuple):
  """A prompt, and how it is to be answered.

  Attributes:
    prompt: int [n].
    seed: for drawing.
    sampling: settings, which may differ from those of others in `config.OF_A_REQUEST`.
  """

  prompt: np.ndarray
  seed: int
  sampling: config_lib.Sampling


class Rows(NamedTuple):
  """One answer a row.

  Attributes:
    tokens: int32 [B, S], masks of the current block included; anything from `length` on.
    kv_end: int32 [B, S], the keys that each token of a prompt or of text sees.
    length: int32 [B], tokens so far.
    settled: int32 [B], how many of them have their final keys and values in the cache.
    span: int32 [B], where the last response span begins; far away before there is one.
    block: int32 [B], where the current block begins.
    step: int32 [B], diffusion steps done in it.
    audio: bool [B], whether audio is wanted next.
    text_left: int32 [B], text tokens that may yet be written.
    max_audio: int32 [B], audio tokens of one span.
    steps: int32 [B], diffusion steps of a block, its tokens at most.
    threshold: float32 [B], of `reveal.choose`.
    text_temperature: float32 [B], of `draw.draw`.
    audio_temperature: float32 [B], likewise.
    seed: uint32 [B], for drawing.
    count: int32 [B], passes so far.
    live: bool [B], the answer goes on.
    complete: bool [B], no limit has ended it or a span of it.
    condition: bool [B, S], tokens that guidance hides from its second reading; None where
      there is no guidance.
  """

  tokens: jax.Array
  kv_end: jax.Array
  length: jax.Array
  settled: jax.Array
  span: jax.Array
  block: jax.Array
  step: jax.Array
  audio: jax.Array
  text_left: jax.Array
  max_audio: jax.Array
  steps: jax.Array
  threshold: jax.Array
  text_temperature: jax.Array
  audio_temperature: jax.Array
  seed: jax.Array
  count: jax.Array
  live: jax.Array
  complete: jax.Array
  condition: jax.Array | None

  @property
  def window(self) -> jax.Array:
    """int32 [B], tokens that the next pass must read; 0 in rows that are done."""
    return jnp.where(self.live, self.length - self.settled, 0)

  @property
  def temperature(self) -> jax.Array:
    """float32 [B], of what is wanted next."""
    return jnp.where(self.audio, self.audio_temperature, self.text_temperature)

  def extended(self, length: int) -> 'Rows':
    """With room for `length` tokens."""
    room = [(0, 0), (0, length - self.tokens.shape[1])]
    kv_end = jnp.broadcast_to(jnp.arange(1, length + 1), (len(self.tokens), length))
    kv_end = kv_end.at[:, : self.kv_end.shape[1]].set(self.kv_end)
    condition = jax.tree.map(lambda x: jnp.pad(x, room), self.condition)
    return self._replace(tokens=jnp.pad(self.tokens, room), kv_end=kv_end, condition=condition)


class Window(NamedTuple):
  """What a pass reads, and where its predictions are wanted.

  Attributes:
    tokens: int32 [B, W].
    positions: int32 [B, W]; from S on where a row's window is shorter.
    kv_end: int32 [B, W], 0 there.
    query: int32 [B, K], places in the window.
    condition: bool [B, W], as in `Rows`, or None.
  """

  tokens: jax.Array
  positions: jax.Array
  kv_end: jax.Array
  query: jax.Array
  condition: jax.Array | None


class Machine(NamedTuple):
  """The rules by which rows advance."""

  vocabulary: vocabulary_lib.Vocabulary
  sampling: config_lib.Sampling
  mask: config_lib.Mask

  def start(self, requests: Sequence[Request], size: int, length: int) -> Rows:
    """Rows behind the prompts of `requests`, the others idle; numpy, [size, length]."""
    sampling, numbers = self.sampling, np.zeros(size, np.int32)
    rows = Rows(
      tokens=np.zeros((size, length), np.int32),
      kv_end=np.tile(np.arange(1, length + 1, dtype=np.int32), (size, 1)),
      length=numbers.copy(),
      settled=numbers,
      span=numbers + _NEVER,
      block=numbers,
      step=numbers,
      audio=np.zeros(size, bool),
      text_left=numbers + sampling.max_text,
      max_audio=numbers + sampling.max_audio,
      steps=numbers + 1,
      threshold=np.zeros(size, np.float32),
      text_temperature=np.zeros(size, np.float32),
      audio_temperature=np.zeros(size, np.float32),
      seed=np.zeros(size, np.uint32),
      count=numbers,
      live=np.zeros(size, bool),
      complete=np.ones(size, bool),
      condition=np.zeros((size, length), bool) if sampling.guidance else None,
    )
    for i, request in enumerate(requests):
      self._start(rows, i, request)
    return rows

  def _start(self, rows: Rows, i: int, request: Request) -> None:
    """Writes a request into row `i` of `rows`, numpy."""
    prompt, own = request.prompt, request.sampling
    spans, n = self.vocabulary.spans(prompt), len(prompt)
    groups = mask_lib.document_groups(prompt, spans, self.mask, self.vocabulary)
    rows.tokens[i, :n], rows.kv_end[i, :n] = prompt, mask_lib.group_ends(groups)
    rows.length[i], rows.live[i], rows.seed[i] = n, True, request.seed
    rows.text_left[i], rows.max_audio[i] = own.max_text, own.max_audio
    # More steps than one a token would reveal nothing.
    rows.steps[i] = min(own.steps_per_block, self.sampling.block_size)
    rows.threshold[i] = own.threshold
    rows.text_temperature[i] = own.text_temperature
    rows.audio_temperature[i] = own.audio_temperature
    if rows.condition is not None:
      responses = ~self.vocabulary.is_prompt(prompt, spans)
      rows.condition[i, :n] = corruption.condition(prompt, spans, responses, self.vocabulary)

  def begin(self, rows: Rows) -> Rows:
    """Opens a span in rows that `start` made, where the prompt ends by beginning audio."""
    return _select(self._begins(_at(rows.tokens, rows.length - 1)), self._span(rows), rows)

  def look(self, rows: Rows, width: int, length: int) -> Window:
    """The next pass of all rows.

    Args:
      rows: none has a wider window than `width`.
      width: W. If it is less than a block, only text is read, and one position a row asked.
      length: S of the cache.
    """
    place = rows.settled[:, None] + jnp.arange(width)
    inside = jnp.arange(width) < rows.window[:, None]
    at = jnp.minimum(place, rows.tokens.shape[1] - 1)
    # From the span on a window is of the span alone, or one token of text: it ends there too.
    end = rows.length[:, None]
    if self.mask.audio == 'block':
      size, span = self.mask.block_size, rows.span[:, None]
      end = jnp.minimum(end, span + ((place - span) // size + 1) * size)
    kv_end = jnp.take_along_axis(rows.kv_end, at, 1)
    kv_end = jnp.where(place >= rows.span[:, None], end, kv_end)
    size = min(width, self.sampling.block_size)
    first = jnp.where(rows.audio, rows.block, rows.length - 1) - rows.settled
    query = first[:, None] + jnp.where(rows.audio[:, None], jnp.arange(size), 0)
    return Window(
      tokens=jnp.take_along_axis(rows.tokens, at, 1),
      positions=jnp.where(inside, place, length + jnp.arange(width)),
      kv_end=jnp.where(inside, kv_end, 0),
      query=jnp.clip(query, 0, width - 1),
      condition=jax.tree.map(lambda x: jnp.take_along_axis(x, at, 1), rows.condition),
    )

  def advance(self, rows: Rows, ids: jax.Array, priority: jax.Array) -> Rows:
    """Takes the predictions at the `query` of `look`: int32 and float32 [B, K]."""
    shape = (len(ids), self.sampling.block_size)
    ids, priority = jnp.broadcast_to(ids, shape), jnp.broadcast_to(priority, shape)
    counted = rows._replace(count=rows.count + 1)
    written, revealed = self._write(counted, ids[:, 0]), self._reveal(counted, ids, priority)
    return _select(rows.live, _select(rows.audio, revealed, written), rows)

  def _begins(self, token: jax.Array) -> jax.Array:
    return (token == self.vocabulary.begin_audio) | (token == self.vocabulary.begin_last)

  def _write(self, rows: Rows, token: jax.Array) -> Rows:
    left = rows.text_left - 1
    ended = token == self.vocabulary.turn_end
    cut = ~ended & (left <= 0)
    rows = rows._replace(
      tokens=_put(rows.tokens, rows.length, token[:, None]),
      length=rows.length + 1,
      settled=rows.length,
      text_left=left,
      live=~ended & ~cut,
      complete=rows.complete & ~cut,
      condition=jax.tree.map(
        lambda x: _put(x, rows.length, ~self._begins(token)[:, None]), rows.condition
      ),
    )
    return _select(rows.live & self._begins(token), self._span(rows), rows)

  def _span(self, rows: Rows) -> Rows:
    return self._block(rows._replace(span=rows.length, audio=jnp.ones_like(rows.audio)))

  def _block(self, rows: Rows) -> Rows:
    size = self.sampling.block_size
    masks = jnp.full((len(rows.length), size), self.vocabulary.mask, jnp.int32)
    return rows._replace(
      tokens=_put(rows.tokens, rows.length, masks),
      block=rows.length,
      length=rows.length + size,
      step=jnp.zeros_like(rows.step),
    )

  def _reveal(self, rows: Rows, ids: jax.Array, priority: jax.Array) -> Rows:
    sampling, mask = self.sampling, self.vocabulary.mask
    place = rows.block[:, None] + jnp.arange(sampling.block_size)
    block = jnp.take_along_axis(rows.tokens, place, 1, mode='clip')
    chosen = reveal.choose(priority, block == mask, rows.step, rows.steps, rows.threshold)
    block = jnp.where(chosen, ids, block)
    settled = rows.span
    if self.mask.audio == 'block':
      size = self.mask.block_size
      settled = rows.span + (rows.block - rows.span) // size * size
    rows = rows._replace(
      tokens=_put(rows.tokens, rows.block, block), settled=settled, step=rows.step + 1
    )
    return _select((block != mask).all(1), self._close(rows, block), rows)

  def _close(self, rows: Rows, block: jax.Array) -> Rows:
    v, size = self.vocabulary, self.sampling.block_size
    text = jnp.zeros_like(rows.audio)
    ends = (block == v.end_inner) | (block == v.end_last)
    cut = rows._replace(length=rows.block + ends.argmax(1) + 1, audio=text)
    last = _at(rows.tokens, rows.span - 1) == v.begin_last
    end = jnp.where(last, v.end_last, v.end_inner)
    forced = rows._replace(
      tokens=_put(rows.tokens, rows.length, end[:, None]),
      length=rows.length + 1,
      audio=text,
      complete=text,
    )
    full = rows.length - rows.span + size > rows.max_audio
    return _select(ends.any(1), cut, _select(full, forced, self._block(rows)))


def _select(condition: jax.Array, chosen: Rows, other: Rows) -> Rows:
  """Row by row `chosen` where `condition`, bool [B]."""

  def pick(a, b):
    return jnp.where(condition.reshape((-1,) + (1,) * (jnp.ndim(b) - 1)), a, b)

  return jax.tree.map(pick, chosen, other)


def _at(tokens: jax.Array, place: jax.Array) -> jax.Array:
  """The token of each row, [B], at `place`, [B]."""
  return jnp.take_along_axis(tokens, place[:, None], 1, mode='clip')[:, 0]


def _put(tokens: jax.Array, start: jax.Array, new: jax.Array) -> jax.Array:
  """`tokens` [B, S] with `new` [B, n] from `start` [B] on."""
  place = jnp.arange(tokens.shape[1]) - start[:, None]
  values = jnp.take_along_axis(new, place, 1, mode='clip')
  return jnp.where((place >= 0) & (place < new.shape[1]), values, tokens)
