import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax import mask, sharding
from ttt_jax.model import cache as cache_lib
from ttt_jax.model import rotary, transformer
from ttt_jax.planning import hlo, work

VOCABULARY = 50
LENGTH = 12
SPAN = (4, 9)  # audio; the rest is text


@functools.cache
def make(**changes):
  config = dataclasses.replace(make_config().model, **changes)
  model = transformer.Transformer(config, VOCABULARY)
  ids = jnp.zeros((1, 2), jnp.int32)
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  return model, params


def inputs(seed=0):
  ids = np.random.default_rng(seed).integers(0, VOCABULARY, (1, LENGTH))
  positions = np.arange(LENGTH)[None]
  groups = mask.order_groups(LENGTH, np.array([SPAN]))
  return ids, positions, np.zeros((1, LENGTH), int), mask.group_ends(groups)[None]


def test_text_is_causal_and_spans_are_bidirectional_by_gradients():
  model, params = make()
  ids, *view = inputs()

  def logits(one_hot):
    changed = dict(params, embedding=jnp.zeros_like(params['embedding']))
    embedded = one_hot @ params['embedding'][:VOCABULARY]
    table = changed['embedding'].at[:LENGTH].set(embedded[0])
    where = jnp.arange(LENGTH)[None]
    return model.apply({'params': dict(params, embedding=table)}, where, *view, method='hidden')

  jacobian = jax.jacobian(logits)(jnp.eye(VOCABULARY)[ids])
  # [1, L, D, 1, L, V]: does the output at q depend on the input at k?
  depends = np.abs(np.asarray(jacobian)).max((0, 2, 3, 5)) > 0
  groups = mask.order_groups(LENGTH, np.array([SPAN]))
  np.testing.assert_array_equal(depends, mask.visible(np.zeros(LENGTH, int), groups))


def test_packed_documents_are_as_if_alone():
  model, params = make()
  ids, positions, start, end = inputs()
  alone = model.apply({'params': params}, ids, positions, start, end)
  twice = [np.concatenate([x, x], 1) for x in (ids, positions)]
  shifted = [np.concatenate([x, x + LENGTH], 1) for x in (start, end)]
  packed = model.apply({'params': params}, *twice, *shifted)
  np.testing.assert_allclose(packed[:, LENGTH:], alone, atol=1e-5)


@functools.cache
def gradient(remat):
  """Of the parameters, as it is compiled; and those."""
  model, params = make(remat=remat, attention='dense')

  def loss(params):
    return jnp.sum(model.apply({'params': params}, *inputs()) ** 2)

  return jax.jit(jax.grad(loss)).lower(params).compile(), params


def test_remat_changes_no_gradient():
  compiled, params = gradient('none')
  wanted = compiled(params)
  for remat in ('products', 'gate', 'attention', 'full'):
    found = gradient(remat)[0](params)
    for a, b in zip(*map(jax.tree.leaves, (found, wanted))):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_remat_policies_compute_anew_what_they_say():
  def operations(remat):
    compiled, _ = gradient(remat)
    return work.flops(hlo.Program(compiled.as_text()), 1)

  none, products, gate, attention, full = map(
    operations, ('none', 'products', 'gate', 'attention', 'full')
  )
  c, positions = make()[0].config, inputs()[0].size
  assert none <= products < gate < attention <= full
  assert attention - gate == 2 * positions * c.layers * c.width * c.mlp_width
  wide = c.width * (c.heads + 2 * c.kv_heads) * c.head_width + c.width * c.mlp_width
  assert gate - products >= 2 * positions * c.layers * wide


def test_rotation_keeps_norms_and_depends_on_differences_alone():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
  at = [jnp.array([[position]]) for position in (3, 10, 20)]
  turns = 100.0 ** (-np.arange(4) / 4)
  np.testing.assert_allclose(
    jnp.linalg.norm(rotary.rotate(q, at[1], turns)), jnp.linalg.norm(q), rtol=1e-6
  )

  def score(i, j):
    return jnp.sum(rotary.rotate(q, i, turns) * rotary.rotate(k, j, turns))

  shifted = score(at[1] + 7, at[0] + 7)
  np.testing.assert_allclose(score(at[1], at[0]), shifted, rtol=1e-5)
  np.testing.assert_allclose(rotary.rotate(q, jnp.array([[0]]), turns), q, rtol=1e-6)


FAMILIES = {
  'qwen2': {'qkv_bias': True, 'qk_norm': False, 'tied': True},
  'qwen3': {'qkv_bias': False, 'qk_norm': True, 'tied': False},
  'llama': {'qkv_bias': False, 'qk_norm': False, 'tied': False},
}


@pytest.mark.parametrize('family', FAMILIES)
def test_the_switches_make_the_families_parameters(family):
  model, params = make(**FAMILIES[family])
  attention = params['layers']['attention']
  assert ('q_bias' in attention) == FAMILIES[family]['qkv_bias']
  assert ('q_norm' in attention) == FAMILIES[family]['qk_norm']
  assert ('head' in params) != FAMILIES[family]['tied']
  assert model.apply({'params': params}, *inputs()).shape == (1, LENGTH, 56)


def test_every_parameter_names_its_axes_and_every_name_has_a_rule():
  model = transformer.Transformer(make_config(model__qk_norm=True, model__tied=False).model, 50)
  ids = jnp.zeros((1, 2), jnp.int32)
  boxed = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  known = {name for name, _ in sharding.RULES}
  for leaf in jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned)):
    assert isinstance(leaf, nn.LogicallyPartitioned)
    assert set(leaf.names) <= known and len(leaf.names) == leaf.value.ndim


def test_tokens_that_go_on_from_cached_ones_are_read_as_together():
  # Rows are cut at places of their own; what is no longer than the other is padding, which
  # must leave no trace; and what is written again counts as it was written last.
  model, params = make()
  ids, positions, start, end = (np.repeat(array, 2, 0) for array in inputs())
  ids[1] = np.random.default_rng(1).integers(0, VOCABULARY, LENGTH)
  wanted = model.apply({'params': params}, ids, positions, start, end, method='hidden')
  length = LENGTH + 4
  cache = cache_lib.Cache.empty(model.config, 2, length)
  garbage = jax.random.normal(jax.random.key(1), cache.k.shape)
  cache = cache._replace(k=garbage, v=garbage).extended(length + 3)
  found = np.zeros(wanted.shape)
  windows = ([0, 0], [3, 4]), ([3, 4], [5, 1]), ([3, 4], [7, 5]), ([10, 9], [2, 3])
  for first, count in windows:
    place = np.array(first)[:, None] + np.arange(8)
    inside = np.arange(8) < np.array(count)[:, None]
    at = np.minimum(place, LENGTH - 1)
    tokens, seen = (np.take_along_axis(array, at, 1) for array in (ids, end))
    where = np.where(inside, place, cache.length + np.arange(8))
    read = np.where(inside, tokens, 0), where, np.where(inside, seen, 0), cache
    hidden, cache = model.apply({'params': params}, *read, method='extend')
    for row in range(2):
      found[row, place[row][inside[row]]] = hidden[row][inside[row]]
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  np.testing.assert_array_equal(cache.k[..., LENGTH:length, :], garbage[..., LENGTH:, :])
