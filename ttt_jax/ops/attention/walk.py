"""Which blocks of keys a block of queries must look at, and the reverse.

An implementation that works by blocks walks, for every block of queries, the blocks of keys
that hold something visible, and no others; the gradient of keys and values walks the other
way. A walk is at most two runs of neighbouring blocks: of an interval a query one run, of two
intervals one run for each. Within a run, a stretch of blocks in which every query sees every
key needs no mask.
"""

import jax
import jax.numpy as jnp

BEGIN, FULL_BEGIN, FULL_END, END = range(4)


def block_matrix(
  start: jax.Array, end: jax.Array, block_q: int, block_k: int, keys: int
) -> tuple[jax.Array, jax.Array]:
  """Which pairs of blocks have something visible, and which nothing hidden.

  Args:
    start: int32 [B, intervals, L], L a multiple of `block_q`.
    end: int32 [B, intervals, L].
    block_q: queries of a block.
    block_k: keys of a block.
    keys: S, a multiple of `block_k`.

  Returns:
    Two of bool [B, L / block_q, S / block_k]: touched, and full.
  """
  blocks = (*start.shape[:2], -1, block_q)
  empty = start >= end
  starts = jnp.where(empty, keys, start).reshape(blocks)
  ends = jnp.where(empty, 0, end).reshape(blocks)
  first = jnp.arange(keys // block_k) * block_k
  behind = first + block_k

  def extent(edge, reduce):
    return reduce(edge, -1)[..., None]

  touched = (behind > extent(starts, jnp.min)) & (first < extent(ends, jnp.max))
  full = (first >= extent(starts, jnp.max)) & (behind <= extent(ends, jnp.min))
  return touched.any(1), full.any(1)


def runs(touched: jax.Array, full: jax.Array) -> jax.Array:
  """Walks along the last axis.

  Args:
    touched: bool [..., n], the blocks that must be looked at.
    full: bool [..., n], those of them that need no mask.

  Returns:
    int32 [..., 2, 4]: of each of two runs `BEGIN <= FULL_BEGIN <= FULL_END <= END`. Together
    they hold every touched block; the widest gap lies between them, and others within them.
    A walk without gaps has an empty second run.
  """
  count = touched.shape[-1]
  place = jnp.arange(count)

  def latest(which):  # the nearest such block at or before each
    return jax.lax.cummax(jnp.where(which, place, -1), axis=which.ndim - 1)

  def pick(array, at):
    return jnp.take_along_axis(array, at[..., None], -1)[..., 0]

  before = jnp.roll(latest(touched), 1, -1).at[..., 0].set(-1)
  gap = jnp.where(touched & (before >= 0), place - before - 1, 0)
  cut = jnp.argmax(gap, -1)  # the second run begins here, if there is a gap
  split = pick(gap, cut) > 0
  begin = jnp.argmax(touched, -1)
  end = jnp.where(touched.any(-1), count - jnp.argmax(touched[..., ::-1], -1), begin)
  end_first = jnp.where(split, pick(before, cut) + 1, end)
  begin_second = jnp.where(split, cut, end)
  stretch = place - latest(~full)  # full blocks that end here

  def run(begin, end):
    within = (place >= begin[..., None]) & (place < end[..., None])
    inner = jnp.where(within, stretch, 0)
    last = jnp.argmax(inner, -1)
    size = pick(inner, last)
    full_begin = jnp.where(size > 0, last + 1 - size, begin)
    return jnp.stack([begin, full_begin, full_begin + size, end], -1)

  both = [run(begin, end_first), run(begin_second, end)]
  return jnp.stack(both, -2).astype(jnp.int32)


def steps(walks: jax.Array) -> jax.Array:
  """Blocks on each walk: int32 [...] of walks [..., 2, 4]."""
  return (walks[..., END] - walks[..., BEGIN]).sum(-1)


def place(walks, step):
  """Where the walk [8], two runs flattened, is at a step that it has.

  Args:
    walks: anything that gives the eight numbers of `runs` by index.
    step: int32 [], clamped to the steps of the walk.

  Returns:
    The block, 0 of an empty walk, and whether it needs no mask.
  """
  first = walks[END] - walks[BEGIN]
  total = first + walks[4 + END] - walks[4 + BEGIN]
  step = jnp.maximum(jnp.minimum(step, total - 1), 0)
  in_first = (step < first) | (total == 0)
  block = jnp.where(in_first, walks[BEGIN] + step, walks[4 + BEGIN] + step - first)
  inside = [(block >= walks[r + FULL_BEGIN]) & (block < walks[r + FULL_END]) for r in (0, 4)]
  return block, inside[0] | inside[1]


def pad(array: jax.Array, axis: int, multiple: int, mode: str = 'constant') -> jax.Array:
  """Pads the end of an axis to a multiple, by zeros or by the last entry ('edge')."""
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, -array.shape[axis] % multiple)
  return jnp.pad(array, widths, mode=mode) if widths[axis][1] else array
