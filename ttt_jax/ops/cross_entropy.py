"""The final projection and its cross-entropy, by chunks of the positions that are targets.

Logits exist for one chunk at a time, never as [B, L, V]. Positions of weight 0 are passed
over: how many chunks there are to do is counted when the step runs, so no bound on the number
of targets has to be known, and none can be exceeded. The gradient is made in the same pass,
while the logits are at hand; they are never made again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ttt_jax.ops import axes as axes_lib
from ttt_jax.ops import dot

F32 = jnp.float32


class Options(NamedTuple):
  """What does not change from step to step.

  Attributes:
    bounds: increasing ids. A target's softmax is over the ids of the interval
      `[bounds[i], bounds[i + 1])` that holds it: (0, size) is the softmax over all ids in
      use, and (0, audio_start, size) restricts each target to the ids of its class.
    excluded: an id of probability 0, which is no target either; None for none.
    z_loss: weight of log(Z)^2, Z the sum under the softmax (arXiv 2204.02311, section 5).
    chunk: positions, on each device, whose logits exist at a time.
    axes: how the arrays lie on the mesh that `jax.set_mesh` has set.
    reduce_dtype: in which devices add up the head's gradient.
  """

  bounds: tuple[int, ...]
  excluded: int | None = None
  z_loss: float = 0.0
  chunk: int = 512
  axes: axes_lib.Axes = axes_lib.Axes()
  reduce_dtype: str = 'float32'


class Scores(NamedTuple):
  """Of each position [B, L]; 0 and False where the weight is 0. They carry no gradient.

  Attributes:
    loss: float32, cross-entropy in nats, without the z-loss; NaN where the target lies
      outside of the bounds.
    correct: bool, whether no id is likelier than the target.
  """

  loss: jax.Array
  correct: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def cross_entropy(
  hidden: jax.Array,
  head: jax.Array,
  targets: jax.Array,
  weights: jax.Array,
  options: Options,
) -> tuple[jax.Array, Scores]:
  """Weighted sum of the cross-entropies of `hidden @ head.T`.

  Products are taken in the dtype of `hidden`; logits, sums and the head's gradient are
  float32, across chunks too. Where the head is stored in parts it is
  gathered once; where it is cut along the vocabulary so are the logits, and each chunk adds
  up no more than three numbers a position.

  Args:
    hidden: [B, L, D]; what it holds where the weight is 0 is not read.
    head: [V, D]; rows that no interval of `options.bounds` covers are padding.
    targets: int32 [B, L].
    weights: float32 [B, L]; no gradient passes through them.
    options: intervals of ids, z-loss, chunk and layout.

  Returns:
    float32 [], sum(weights * (cross-entropy + z_loss * log(Z)^2)), and the scores.

  Raises:
    ValueError: the head is stored along axes that do not cut the positions.
  """
  return _score(hidden, head, targets, weights, options, gradient=False)[0]


def _forward(hidden, head, targets, weights, options):
  return _score(hidden, head, targets, weights, options, gradient=True)


def _backward(options, gradients, cotangents):
  d_hidden, d_head = ((cotangents[0] * g).astype(g.dtype) for g in gradients)
  return d_hidden, d_head, None, None


cross_entropy.defvjp(_forward, _backward)


def _score(hidden, head, targets, weights, options, gradient):
  """Objective and scores; and the gradients by hidden and head, or () without `gradient`."""
  axes = options.axes
  axes.check()
  walk = functools.partial(_walk, options=options, gradient=gradient)
  if any(axes):
    tokens, rows = axes.of_tokens, axes.of_table
    out = (tokens, (tokens, rows) if gradient else ())
    walk = jax.shard_map(walk, in_specs=(tokens, rows, tokens, tokens), out_specs=out)
  (loss, log_sum, correct), gradients = walk(hidden, head, targets, weights)
  objective = jnp.sum(weights * (loss + options.z_loss * log_sum**2))
  return (objective, Scores(loss, correct)), gradients


def _walk(hidden, head, targets, weights, options, gradient):
  """One device's part: loss, log(Z) and correctness [B, L], and the gradients."""
  axes, shape = options.axes, targets.shape
  x, targets, weights = (a.reshape(-1, *a.shape[2:]) for a in (hidden, targets, weights))
  rows = axes_lib.gather(head.astype(x.dtype), axes)
  wanted = weights != 0
  found = jnp.where(wanted, jnp.array([[jnp.nan], [0], [0]], F32), 0)
  d_x = jnp.zeros_like(x)
  d_head = axes_lib.varying(jnp.zeros(rows.shape, F32), axes.tokens + axes.vocabulary)
  for interval in zip(options.bounds, options.bounds[1:]):
    member = wanted & (targets >= interval[0]) & (targets < interval[1])
    tokens = x, targets, weights
    packed, packed_d_x, d_head = _chunks(
      tokens, member, rows, d_head, interval, options, gradient
    )
    place = jnp.cumsum(member) - 1  # of each member among the members
    found = jnp.where(member, packed[:, place], found)
    if gradient:
      d_x = jnp.where(member[:, None], packed_d_x[place], d_x)
  loss, log_sum, correct = found.reshape(3, *shape)
  scores = loss, log_sum, correct > 0
  if not gradient:
    return scores, ()
  if axes.vocabulary:
    d_x = lax.psum(d_x, axes.vocabulary)
  d_head = axes_lib.reduce(d_head, axes, options.reduce_dtype)
  return scores, (d_x.reshape(hidden.shape), d_head.astype(head.dtype))


def _chunks(tokens, member, rows, d_head, interval, options, gradient):
  """The softmax over one interval of ids, for the positions that it is for.

  Args:
    tokens: hidden [M, D], targets [M] and weights [M].
    member: bool [M], the positions that are wanted.
    rows: [V, D], the head.
    d_head: float32 [V, D], the head's gradient so far.
    interval: ids.
    options: as given to `cross_entropy`.
    gradient: whether gradients are wanted.

  Returns:
    Packed, the members first and in order: float32 [3, M or more], loss, log(Z) and
    correctness; and [M or more, D], the gradient by hidden. Then the head's gradient.
  """
  axes, count = options.axes, len(member)
  size = min(options.chunk, count)
  places = jnp.flatnonzero(member, size=-(-count // size) * size, fill_value=count)
  members = jnp.sum(member, dtype=jnp.int32)
  if axes.vocabulary and axes.tokens:  # devices that meet in a loop go round it equally often
    members = lax.pmax(members, axes.tokens)
  used, first_id = slice(*interval), interval[0]
  if axes.vocabulary:  # which rows are here depends on the device: take all
    used, first_id = slice(None), lax.axis_index(axes.vocabulary) * len(rows)
  rows = rows[used]
  ids = first_id + np.arange(len(rows))
  possible = (ids >= interval[0]) & (ids < interval[1])
  if options.excluded is not None:
    possible &= ids != options.excluded
  fills = 0, interval[0], 0  # beyond the last member: harmless values of weight 0

  def body(number, carry):
    found, d_x, d_head = carry
    start = number * size
    place = lax.dynamic_slice_in_dim(places, start, size)
    x, target, weight = (
      jnp.take(array, place, axis=0, mode='fill', fill_value=fill)
      for array, fill in zip(tokens, fills)
    )
    logits = dot.einsum('LD,VD->LV', x, rows, F32)
    logits = jnp.where(possible, logits, -jnp.inf)
    loss, log_sum, correct = _softmax(logits, target - first_id, axes.vocabulary)
    found = lax.dynamic_update_slice(found, jnp.stack([loss, log_sum, correct]), (0, start))
    if gradient:
      # d loss / d logit = p - [target], d log(Z)^2 / d logit = 2 log(Z) p
      d_logits = (1 + 2 * options.z_loss * log_sum)[:, None] * jnp.exp(
        logits - log_sum[:, None]
      )
      d_logits = weight[:, None] * (d_logits - (ids == target[:, None]))
      d_logits = d_logits.astype(x.dtype)
      d_x = lax.dynamic_update_slice(d_x, dot.einsum('LV,VD->LD', d_logits, rows), (start, 0))
      d_head = d_head.at[used].add(dot.einsum('LV,LD->VD', d_logits, x, F32))
    return found, d_x, d_head

  found = axes_lib.varying(jnp.zeros((3, len(places)), F32), axes.tokens)
  d_x = jnp.zeros((len(places), rows.shape[1]), rows.dtype)
  d_x = axes_lib.varying(d_x, axes.tokens + axes.vocabulary)
  return lax.fori_loop(0, (members + size - 1) // size, body, (found, d_x, d_head))


def _softmax(logits, target, axes):
  """Cross-entropy, log of the sum, and 1.0 where the target is likeliest; float32 [L].

  Args:
    logits: float32 [L, V], cut along V by `axes`; -inf where an id is impossible.
    target: int32 [L], number of the target among the ids that are here; it may lie elsewhere.
    axes: of the mesh.
  """
  top = logits.max(-1)
  if axes:
    top = lax.pmax(top, axes)
  total = jnp.sum(jnp.exp(logits - top[:, None]), -1)
  here = (target >= 0) & (target < logits.shape[-1])
  right = jnp.take_along_axis(logits, jnp.where(here, target, 0)[:, None], -1)[:, 0]
  sums = jnp.stack([total, jnp.where(here, right, 0)])
  if axes:
    sums = lax.psum(sums, axes)
  total, right = sums
  log_sum = top + jnp.log(total)
  return log_sum - right, log_sum, (top == right).astype(F32)
