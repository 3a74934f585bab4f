"""Passes of the network over answers under way, on the device.

Rows in text and rows in audio advance together: each pass serves one token of the former and
one diffusion step of the latter, and reads of each row only what is not settled (see rows.py).
Passes follow each other in a loop on the device, which the host restarts where a shape must
change: the width of the window, the length of the cache; or where it is wanted back.
"""

import contextlib
import copy
from collections.abc import Callable, Sequence
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


class State(NamedTuple):
  """Answers under way."""

  rows: rows_lib.Rows
  cache: cache_lib.Cache


class Passes:
  """One set of parameters, and the rules by which they answer.

  Every method that is given a state consumes it.

  Attributes:
    sampling: settings; requests may have `config.OF_A_REQUEST` of their own.
    vocabulary: ids and their classes.
    compiled: the `Shape` of everything that was compiled so far.
    count: how often the network was run so far.
    ways: rows are computed in multiples of it, so that each device has as many.
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
    self._mesh, self.ways = mesh, sharding.rows_of(mesh) if mesh else 1
    self.vocabulary, self.sampling = vocabulary, sampling
    self._model, self._params = model, computed_with(params, model.config.dtype)
    self._machine = rows_lib.Machine(vocabulary, sampling, mask)
    self.compiled: list[Shape] = []
    self.count = 0
    # On a mesh each device has all of the rows, which are little, and its part of the cache.
    laid = whole = None
    if mesh:
      whole = sharding.replicated(mesh)
      axes = nn.logical_to_mesh_axes(_CACHE_AXES, sharding.RULES)
      cut = jax.sharding.NamedSharding(mesh, axes)
      laid = State(whole, cache_lib.Cache(cut, cut, whole))
    how = {'static_argnames': 'width', 'donate_argnames': 'state'}
    self._admit = self._jit(self._admit_rows, out_shardings=laid, **how)
    ran = (laid, whole) if mesh else None
    self._run = self._jit(self._run_rows, out_shardings=ran, **how)
    self._extend = self._jit(self._extended, out_shardings=laid, static_argnums=1)
    self._idle = self._jit(self._no_rows, out_shardings=laid, static_argnums=(0, 1))

  def with_params(self, params: Any) -> Self:
    """The same for other parameters, that lie as these do; it shares what was compiled."""
    other = copy.copy(self)
    other._params = computed_with(params, self._model.config.dtype)
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

  def length(self, tokens: int) -> int:
    """Of a cache for rows of so many tokens and what one pass may append to them."""
    # That is a begin and its block, or the end of a span.
    return _power(tokens + self._room, _SHORTEST)

  def empty(self, size: int, length: int) -> State:
    """No answers, in so many rows."""
    state = self._idle(size, length)
    if self._mesh:
      return state
    # Put where the parameters are: left to be placed, it would be another kind of argument
    # than what comes out of a pass, and all would be compiled twice.
    where = _replicated(jax.tree.leaves(self._params)[0].sharding)
    return jax.device_put(state, where)

  def extended(self, state: State, length: int) -> State:
    """With room for `length` tokens at least, as `self.length` gives it."""
    return self._extend(state, length) if length > state.cache.length else state

  def admit(
    self, state: State, requests: Sequence[rows_lib.Request], at: Sequence[int], together: int
  ) -> State:
    """Reads prompts into rows that are free; the cache must have room for them.

    Args:
      state: answers under way.
      requests: `together` at most.
      at: the row of each.
      together: rows that are computed, whatever there is to read.
    """
    longest = max(len(request.prompt) for request in requests)
    width = self._reading(longest)
    started = self._machine.start(requests, together, state.cache.length)
    places = np.full(together, len(state.rows.live), np.int32)
    places[: len(at)] = at
    self.count += 1
    return self._admit(self._params, state, started, places, width=width)

  def run(self, state: State, window: np.ndarray, replace: bool, limit: int) -> State:
    """Runs passes as long as shapes fit.

    Args:
      state: answers under way; some row is live, and the cache has room for a pass.
      window: `state.rows.window`, on the host.
      replace: whether to come back as soon as a row has finished.
      limit: the most passes.
    """
    width = self._width(int(window.max()))
    state, passes = self._run(self._params, state, replace, limit, width=width)
    if not passes:  # would go on for ever
      raise RuntimeError(f'no pass fits: windows of {window.tolist()} in a width of {width}')
    self.count += int(passes)
    return state

  def warm(self, state: State, longest: int) -> State:
    """Compiles what prompts and spans need at this length of the cache; changes nothing.

    Args:
      state: no row is live.
      longest: tokens of the longest prompt.
    """
    size, length = len(state.rows.live), state.cache.length
    spans = self.sampling.max_audio + self.sampling.block_size
    for width in {1, *(self._width(w) for w in range(2, min(spans, length) + 1))}:
      state, _ = self._run(self._params, state, False, 1, width=width)
    widths = {self._reading(n) for n in range(1, longest + 1)}
    for together in {self.ways, size}:
      idle = self._machine.start([], together, length)
      nowhere = np.full(together, size, np.int32)
      for width in widths:
        state = self._admit(self._params, state, idle, nowhere, width=width)
    return state

  def _no_rows(self, size: int, length: int) -> State:
    rows = jax.tree.map(jnp.array, self._machine.start([], size, length))
    return State(rows, self._cache(size, length))

  def _extended(self, state: State, length: int) -> State:
    return State(*(part.extended(length) for part in state))

  @property
  def _room(self) -> int:
    return self.sampling.block_size + 1

  def _cache(self, batch: int, length: int) -> cache_lib.Cache:
    readings = 2 if self.sampling.guidance else 1
    return cache_lib.Cache.empty(self._model.config, readings * batch, length)

  def _width(self, widest: int) -> int:
    narrowest = max(_NARROWEST, _power(self.sampling.block_size))
    return 1 if widest == 1 else _power(widest, narrowest)

  def _reading(self, prompt: int) -> int:
    """Width for prompts of so many tokens."""
    return _eighths(self._width(2), prompt + self.sampling.block_size)

  def _admit_rows(self, params, state, started, at, width: int):
    """Reads the prompts of `started` [G, S], and puts them at the rows `at` [G]."""
    (rows, cache), length = state, state.cache.length
    own = self._cache(len(at), min(width, length))
    self.compiled.append(Shape('admit', own.batch, width, length))
    started, own = self._pass(params, self._machine.begin(started), own, width)
    slots = guidance.slots(at) if self.sampling.guidance else at

    def put(whole, new):
      return whole.at[at].set(new, mode='drop')

    def put_cached(whole, new):
      return whole.at[:, slots, :, : new.shape[3]].set(new, mode='drop')

    cache = cache._replace(k=put_cached(cache.k, own.k), v=put_cached(cache.v, own.v))
    return State(jax.tree.map(put, rows, started), cache)

  def _run_rows(self, params, state, replace, limit, width: int):
    length = state.cache.length
    self.compiled.append(Shape('run', state.cache.batch, width, length))
    narrowest = self._width(2)
    least = {1: 1, narrowest: 2}.get(width, width // 2 + 1)
    before = state.rows.live.sum()

    def going(carry):
      (rows, _), passes = carry
      widest = rows.window.max()
      end = jnp.where(rows.live, rows.length, 0).max()
      fits = (widest <= width) & (widest >= least) & (end + self._room <= length)
      return fits & ~(replace & (rows.live.sum() < before)) & (passes < limit)

    def body(carry):
      (rows, cache), passes = carry
      return State(*self._pass(params, rows, cache, width)), passes + 1

    return jax.lax.while_loop(going, body, (state, jnp.int32(0)))

  def _pass(self, params, rows, cache, width: int):
    """Each row's next token or diffusion step."""
    window, scale = self._machine.look(rows, width, cache.length), self.sampling.guidance
    if scale:
      window = guidance.both(window, self.vocabulary.mask)
    read = window.tokens, window.positions, window.kv_end, cache
    hidden, cache = self._model.apply({'params': params}, *read, method='extend')
    asked = jnp.take_along_axis(hidden, window.query[..., None], 1)
    logits = self._model.apply({'params': params}, asked, method='unembed')
    if scale:
      logits = guidance.combine(logits, rows.audio, scale)
    logits = draw.restrict(logits, rows.audio[:, None], self.vocabulary)
    keys = draw.keys(rows.seed, rows.count, window.query.shape[1])
    drawn = draw.draw(logits, keys, rows.temperature, self.sampling)
    k, v = (nn.with_logical_constraint(x, _CACHE_AXES) for x in (cache.k, cache.v))
    return self._machine.advance(rows, *drawn), cache._replace(k=k, v=v)


def _power(number: int, least: int = 1) -> int:
  """The least power of two that is at least `number` and `least`."""
  return 1 << (max(number, least, 1) - 1).bit_length()


def _eighths(least: int, number: int) -> int:
  """A width of at least `number` tokens, above 256 little more: reading prompts costs most."""
  power = _power(number, least)
  step = max(power // 16, _STEP)  # an eighth of the power of two below
  return min(power, -(-number // step) * step)


def _replicated(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
  """On the same devices, uncut."""
  if isinstance(sharding, jax.sharding.NamedSharding):
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
  return sharding


def computed_with(params: Any, dtype: str) -> Any:
  """`params` as the network computes with them, so that no pass need convert them."""

  def convert(path, leaf):
    name = path[-1].key
    added = name == 'scale' or name.endswith('_bias')  # in float32
    return leaf if added else jnp.asarray(leaf, dtype)

  return jax.tree_util.tree_map_with_path(convert, params)
