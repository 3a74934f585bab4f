"""The network against transformers: the same weights must give the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sources
import torch
from conftest import make_config
from flax import linen as nn

from ttt_jax import mask
from ttt_jax.conversion import families, table
from ttt_jax.model import transformer

ROWS, LENGTH = 61, 14


def both(family):
  """Their random model, and our settings and parameters for the same one."""
  theirs = sources.make(family, ROWS)
  values = theirs.config.to_dict()
  config, rows = families.model_from(values, make_config().model, 'config.json')
  assert rows == ROWS
  return theirs, config, table.to_ours(sources.tensors_of(theirs), config, ROWS)


def packed(hybrid):
  """Two packed documents, with a span in each where the mask is hybrid.

  Ids, positions, the intervals of keys, and the dense mask by the rule.
  """
  sizes, spans = (8, 6), (np.array([[2, 6]]), np.array([[1, 4]]))
  documents, groups, start, end, at = [], [], [], [], 0
  for number, (size, span) in enumerate(zip(sizes, spans)):
    order = mask.order_groups(size, span if hybrid else span[:0])
    documents += [number] * size
    groups += order.tolist()
    start += [at] * size
    end += (at + mask.group_ends(order)).tolist()
    at += size
  ids = np.random.default_rng(0).integers(0, ROWS, (1, LENGTH))
  positions = np.array([[*range(sizes[0]), *range(sizes[1])]]) + 9
  visible = mask.visible(np.array(documents), np.array(groups))
  return ids, positions, np.array([start]), np.array([end]), visible


def their_logits(theirs, ids, positions, visible):
  return theirs(
    input_ids=torch.tensor(ids),
    position_ids=torch.tensor(positions),
    attention_mask=torch.tensor(visible)[None, None],
    use_cache=False,
  ).logits


@pytest.mark.parametrize('hybrid', [False, True])
@pytest.mark.parametrize('family', sources.FAMILIES)
def test_logits_are_those_of_transformers(family, hybrid):
  theirs, config, params = both(family)
  ids, positions, start, end, visible = packed(hybrid)
  model = transformer.Transformer(config, ROWS)
  ours = model.apply({'params': params}, ids, positions, start, end)
  with torch.no_grad():
    wanted = their_logits(theirs, ids, positions, visible)
  np.testing.assert_allclose(ours[..., :ROWS], wanted.numpy(), atol=1e-4)


def test_gradients_are_those_of_transformers():
  theirs, config, params = both('qwen2')
  ids, positions, start, end, visible = packed(hybrid=True)
  upstream = np.random.default_rng(1).normal(size=(1, LENGTH, ROWS)).astype(np.float32)
  (their_logits(theirs, ids, positions, visible) * torch.tensor(upstream)).sum().backward()
  model = transformer.Transformer(config, ROWS)

  def loss(params):
    logits = model.apply({'params': params}, ids, positions, start, end)
    return jnp.sum(logits[..., :ROWS] * upstream)

  ours = jax.grad(loss)(params)
  named = dict(theirs.named_parameters())
  for name, make in table.to_theirs(lambda keys: np.asarray(at(ours, keys)), config, ROWS):
    wanted = named[name].grad.numpy()
    np.testing.assert_allclose(make(), wanted, atol=2e-5 * np.abs(wanted).max(), err_msg=name)


def at(tree, keys):
  for key in keys:
    tree = tree[key]
  return tree


@pytest.mark.parametrize('family', sources.FAMILIES)
def test_there_and_back_is_bit_exact(family):
  theirs, config, params = both(family)
  tensors = sources.tensors_of(theirs)
  back = list(table.to_theirs(lambda keys: at(params, keys), config, ROWS))
  assert {name for name, _ in back} == set(tensors)
  sizes = table.sizes(config, ROWS)
  assert list(sizes) == [name for name, _ in back]
  for name, make in back:
    np.testing.assert_array_equal(make(), tensors[name])
    assert sizes[name] == tensors[name].size


def test_the_tree_is_that_of_the_network():
  _, config, params = both('qwen3')
  model = transformer.Transformer(config, ROWS)
  ids = np.zeros((1, 2), np.int32)
  wanted = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  shapes = jax.tree.map(lambda leaf: leaf.shape, jax.tree.map(np.asarray, params))
  assert shapes == jax.tree.map(lambda leaf: leaf.shape, nn.unbox(wanted))


def test_everything_that_does_not_fit_is_listed_at_once():
  theirs, config, _ = both('qwen2')
  shapes = {name: tensor.shape for name, tensor in sources.tensors_of(theirs).items()}
  table.check(shapes, config, ROWS)
  shapes.pop('model.norm.weight')
  shapes['strange.weight'] = (3,)
  shapes['model.layers.1.mlp.up_proj.weight'] = (2, 2)
  with pytest.raises(table.ConversionError) as error:
    table.check(shapes, config, ROWS)
  said = str(error.value)
  assert 'missing: model.norm.weight' in said and 'unexpected: strange.weight' in said
  assert 'model.layers.1.mlp.up_proj.weight: shape (2, 2), wanted (48, 64)' in said
