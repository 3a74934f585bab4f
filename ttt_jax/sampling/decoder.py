"""Hybrid decoding with an exact cache, for many prompts together.

Rows in text and rows in audio advance together: each pass of the network serves one token
of the former and one diffusion step of the latter, and reads of each row only what is not
settled (see rows.py). Passes follow each other on the device, in a loop that the host
restarts where a shape must change: the width of the window, the length of the cache; or
where a row has finished and another prompt waits for its place.
"""

import collections
import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import cache as cache_lib
from ttt_jax.model import transformer
from ttt_jax.sampling import draw, guidance
from ttt_jax.sampling import rows as rows_lib

_SHORTEST = 128  # cache; longer ones are powers of two, so that few shapes are compiled
_NARROWEST = 8  # window of more than one token; likewise
_CACHE_AXES = (None, 'batch', 'kv_heads', None, None)  # by logical names
_STEP = 128  # the finest in which the windows of long prompts grow


class Answer(NamedTuple):
  """What the model said.

  Attributes:
    tokens: int32 [n], text and audio, ends and begins included.
    complete: false where a limit of `config.Sampling` ended it or a span of it.
  """

  tokens: np.ndarray
  complete: bool


class Event(NamedTuple):
  """What has become final of an answer.

  Attributes:
    kind: 'text' (begins of audio included), 'audio' (a block, or what is left of it), 'end'
      of a span, or 'done'.
    tokens: int32 [n], ids of text, or ids of codes; empty in the other kinds.
    complete: false in 'done' where a limit ended the answer or a span of it.
  """

  kind: str
  tokens: np.ndarray
  complete: bool = True


class Shape(NamedTuple):
  """What one compilation is for.

  Attributes:
    stage: 'admit' or 'run'.
    batch: rows that the network computes; with guidance two for each answer.
    width: tokens of the window.
    length: tokens of the cache.
  """

  stage: str
  batch: int
  width: int
  length: int


class Decoder:
  """Answers prompts with one set of parameters.

  Attributes:
    compiled: the `Shape` of everything that was compiled so far.
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
    """Compiles nothing yet.

    Args:
      model: the network.
      params: its parameters.
      vocabulary: its ids.
      sampling: how it is decoded.
      mask: as in training.
      mesh: one with `sequence` 1 (`sharding.of_rows`), on which `params` lie; rows are cut
        along it. By default all is on one device.
    """
    self._model, self._vocabulary, self._sampling = model, vocabulary, sampling
    self._mesh, self._ways = mesh, sharding.rows_of(mesh) if mesh else 1
    self._params = _computed_with(params, model.config.dtype)
    self._machine = rows_lib.Machine(vocabulary, sampling, mask)
    self.compiled: list[Shape] = []
    self.passes = 0
    # On a mesh each device has all of the rows, which are little, and its part of the cache.
    state = whole = None
    if mesh:
      whole = sharding.replicated(mesh)
      axes = nn.logical_to_mesh_axes(_CACHE_AXES, sharding.RULES)
      cut = jax.sharding.NamedSharding(mesh, axes)
      state = whole, cache_lib.Cache(cut, cut, whole)
    how = {'static_argnames': 'width', 'donate_argnames': ('rows', 'cache')}
    self._admit = self._jit(self._admit_rows, out_shardings=state, **how)
    ran = (*state, whole) if mesh else None
    self._run = self._jit(self._run_rows, out_shardings=ran, **how)
    self._extend = self._jit(self._extended, out_shardings=state, static_argnums=1)
    self._empty = self._jit(self._idle, out_shardings=state, static_argnums=(0, 1))

  def with_params(self, params: Any) -> Self:
    """A decoder of other parameters, that lie as these do; it shares what was compiled."""
    other = copy.copy(self)
    other._params = _computed_with(params, self._model.config.dtype)
    return other

  def _jit(self, function: Callable, **how) -> Callable:
    """Compiles `function`, to be called under the mesh."""
    compiled = jax.jit(function, **how)

    def call(*arguments, **more):
      with contextlib.ExitStack() as stack:
        if self._mesh:
          stack.enter_context(jax.set_mesh(self._mesh))
          stack.enter_context(nn.logical_axis_rules(sharding.RULES))
        return compiled(*arguments, **more)

    return call

  def __call__(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int] | None = None
  ) -> list[Answer]:
    """Answers each prompt; what one is told does not depend on the others.

    Args:
      prompts: int [n] each, conversations up to where the model is to speak.
      seeds: one a prompt, for drawing; by default their numbers.

    Raises:
      VocabularyError: a prompt is empty, or has an unknown token.
    """
    answers = dict(self.answer(prompts, seeds))
    return [answers[number] for number in range(len(prompts))]

  def answer(
    self, prompts: Sequence[np.ndarray], seeds: Sequence[int] | None = None
  ) -> Iterator[tuple[int, Answer]]:
    """As a call, but gives the number of each prompt and its answer as soon as that ends."""
    seeds = range(len(prompts)) if seeds is None else seeds
    for number, prompt in enumerate(prompts):
      self.check(prompt, f'prompt {number}')
    waiting = collections.deque(enumerate(prompts))
    together = self._whole(min(self._sampling.batch, _power(len(prompts))))
    places: list[int | None] = [None] * together
    longest = max(map(len, prompts), default=0)
    state = self._empty(len(places), _power(longest + self._room, _SHORTEST))
    while waiting or any(place is not None for place in places):
      state = self._fill(state, places, waiting, seeds)
      state = self._advance(state, bool(waiting))
      live, length, complete = jax.device_get(
        (state[0].live, state[0].length, state[0].complete)
      )
      for i, number in enumerate(places):
        if number is not None and not live[i]:
          tokens = np.asarray(state[0].tokens[i])[len(prompts[number]) : length[i]]
          places[i] = None
          yield number, Answer(tokens, bool(complete[i]))

  def stream(self, prompt: np.ndarray, seed: int = 0) -> Iterator[Event]:
    """Answers one prompt as it goes: all `tokens` together are those of a call, but for ends.

    Args:
      prompt: int [n].
      seed: for drawing.

    Raises:
      VocabularyError: the prompt is empty, too long, or has an unknown token.
    """
    self.check(prompt, 'prompt 0')
    places = [None] * self._whole(1)
    state = self._empty(len(places), _power(len(prompt) + self._room, _SHORTEST))
    state = self._fill(state, places, collections.deque([(0, prompt)]), [seed])
    sent, live = len(prompt), True
    while live:
      rows = jax.device_get(state[0])
      live, end = rows.live[0], int((rows.block if rows.audio[0] else rows.length)[0])
      yield from self._events(rows.tokens[0, sent:end])
      sent = end
      state = self._advance(state, False, limit=1)
    yield Event('done', np.zeros(0, np.int32), bool(rows.complete[0]))

  def _events(self, tokens: np.ndarray) -> Iterator[Event]:
    v = self._vocabulary
    audio = v.is_audio(tokens)
    for run in np.split(tokens, np.flatnonzero(audio[1:] != audio[:-1]) + 1):
      if len(run) and not v.is_audio(run[0]):
        yield Event('text', run)
      elif len(run):
        ended = v.is_end(run[-1])
        yield Event('audio', run[: len(run) - ended])
        if ended:
          yield Event('end', np.zeros(0, np.int32))

  @property
  def _room(self) -> int:
    """Tokens that one pass may append: a begin and its block, or the end of a span."""
    return self._sampling.block_size + 1

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

  def _whole(self, rows: int) -> int:
    """So many rows or a few more, so that each device has as many."""
    return -(-rows // self._ways) * self._ways

  def _idle(self, batch: int, length: int):
    rows = self._machine.start([], [], batch, length)
    return jax.tree.map(jnp.array, rows), self._cache(batch, length)

  def _extended(self, state, length: int):
    return tuple(part.extended(length) for part in state)

  def _cache(self, batch: int, length: int) -> cache_lib.Cache:
    readings = 2 if self._sampling.guidance else 1
    return cache_lib.Cache.empty(self._model.config, readings * batch, length)

  def _width(self, widest: int) -> int:
    narrowest = max(_NARROWEST, _power(self._sampling.block_size))
    return 1 if widest == 1 else _power(widest, narrowest)

  def _fill(self, state, places, waiting, seeds):
    """Lets prompts that wait take the free places, and reads them."""
    free = [i for i, number in enumerate(places) if number is None][: len(waiting)]
    # A few are read one by one, rather than among many rows that are idle.
    together = self._ways if len(free) * 4 <= len(places) else len(places)
    for first in range(0, len(free), together):
      chosen = free[first : first + together]
      new = [waiting.popleft() for _ in chosen]
      for i, (number, _) in zip(chosen, new):
        places[i] = number
      numbers, prompts = zip(*new)
      width = _eighths(self._width(2), max(map(len, prompts)) + self._sampling.block_size)
      length = state[1].length
      started = self._machine.start(prompts, [seeds[n] for n in numbers], together, length)
      at = np.full(together, len(places), np.int32)
      at[: len(chosen)] = chosen
      state = self._admit(self._params, *state, started, at, width=width)
      self.passes += 1
    return state

  def _advance(self, state, replace: bool, limit: int = 2**30):
    """Runs passes as long as shapes fit, or until a row has finished if `replace`."""
    live, length, window = jax.device_get((state[0].live, state[0].length, state[0].window))
    if not live.any():
      return state
    needed = _power(int(length[live].max()) + self._room, _SHORTEST)
    if needed > state[1].length:
      state = self._extend(state, needed)
    width = self._width(int(window.max()))
    *state, passes = self._run(self._params, *state, replace, limit, width=width)
    if not passes:  # would go on for ever
      raise RuntimeError(f'no pass fits: windows of {window.tolist()} in a width of {width}')
    self.passes += int(passes)
    return state

  def _admit_rows(self, params, rows, cache, started, at, width: int):
    """Reads the prompts of `started` [G, S], and puts them at the rows `at` [G]."""
    length = cache.length
    own = self._cache(len(at), min(width, length))
    self.compiled.append(Shape('admit', own.batch, width, length))
    started, own = self._pass(params, self._machine.begin(started), own, width)
    slots = guidance.slots(at) if self._sampling.guidance else at

    def put(whole, new):
      return whole.at[at].set(new, mode='drop')

    def put_cached(whole, new):
      return whole.at[:, slots, :, : new.shape[3]].set(new, mode='drop')

    cache = cache._replace(k=put_cached(cache.k, own.k), v=put_cached(cache.v, own.v))
    return jax.tree.map(put, rows, started), cache

  def _run_rows(self, params, rows, cache, replace, limit, width: int):
    self.compiled.append(Shape('run', cache.batch, width, cache.length))
    narrowest = self._width(2)
    least = {1: 1, narrowest: 2}.get(width, width // 2 + 1)
    before = rows.live.sum()

    def going(state):
      rows, _, passes = state
      widest = rows.window.max()
      end = jnp.where(rows.live, rows.length, 0).max()
      fits = (widest <= width) & (widest >= least) & (end + self._room <= cache.length)
      return fits & ~(replace & (rows.live.sum() < before)) & (passes < limit)

    def body(state):
      rows, cache, passes = state
      return *self._pass(params, rows, cache, width), passes + 1

    return jax.lax.while_loop(going, body, (rows, cache, jnp.int32(0)))

  def _pass(self, params, rows, cache, width: int):
    """Each row's next token or diffusion step."""
    window, scale = self._machine.look(rows, width, cache.length), self._sampling.guidance
    if scale:
      window = guidance.both(window, self._vocabulary.mask)
    read = window.tokens, window.positions, window.kv_end, cache
    hidden, cache = self._model.apply({'params': params}, *read, method='extend')
    asked = jnp.take_along_axis(hidden, window.query[..., None], 1)
    logits = self._model.apply({'params': params}, asked, method='unembed')
    if scale:
      logits = guidance.combine(logits, rows.audio, scale)
    logits = draw.restrict(logits, rows.audio[:, None], self._vocabulary)
    keys = draw.keys(rows.seed, rows.count, window.query.shape[1])
    rows = self._machine.advance(rows, *draw.draw(logits, keys, self._sampling))
    k, v = (nn.with_logical_constraint(x, _CACHE_AXES) for x in (cache.k, cache.v))
    return rows, cache._replace(k=k, v=v)


def _power(number: int, least: int = 1) -> int:
  """The least power of two that is at least `number` and `least`."""
  return 1 << (max(number, least, 1) - 1).bit_length()


def _eighths(least: int, number: int) -> int:
  """A width of at least `number` tokens, above 256 little more: reading prompts costs most."""
  power = _power(number, least)
  step = max(power // 16, _STEP)  # an eighth of the power of two below
  return min(power, -(-number // step) * step)


def _computed_with(params: Any, dtype: str) -> Any:
  """`params` as they enter matrix products, so that no pass need convert them."""

  def convert(path, leaf):
    return leaf if path[-1].key == 'scale' else jnp.asarray(leaf, dtype)

  return jax.tree_util.tree_map_with_path(convert, params)
