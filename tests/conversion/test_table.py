"""The network against transformers: the same weights must give the same logits."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import make_config
from flax import linen as nn

from ttt_jax import mask
from ttt_jax.conversion import table
from ttt_jax.model import transformer

VOCABULARY, LENGTH = 61, 14

FAMILIES = {
  'qwen2': (
    transformers.Qwen2Config,
    transformers.Qwen2ForCausalLM,
    {'qkv_bias': True, 'qk_norm': False, 'tied': True},
  ),
  'qwen3': (
    transformers.Qwen3Config,
    transformers.Qwen3ForCausalLM,
    {'qkv_bias': False, 'qk_norm': True, 'tied': False},
  ),
  'llama': (
    transformers.LlamaConfig,
    transformers.LlamaForCausalLM,
    {'qkv_bias': False, 'qk_norm': False, 'tied': False},
  ),
}


def both(family):
  """Their random model, and our settings for the same one."""
  make_theirs, cls, switches = FAMILIES[family]
  config = dataclasses.replace(make_config().model, head_width=16, rope_theta=500.0, **switches)
  torch.manual_seed(0)
  theirs = cls(
    make_theirs(
      vocab_size=VOCABULARY,
      hidden_size=config.width,
      intermediate_size=config.mlp_width,
      num_hidden_layers=config.layers,
      num_attention_heads=config.heads,
      num_key_value_heads=config.kv_heads,
      head_dim=config.head_width,
      rope_parameters={'rope_type': 'default', 'rope_theta': config.rope_theta},
      rms_norm_eps=config.norm_epsilon,
      tie_word_embeddings=config.tied,
      attn_implementation='sdpa',
    )
  )
  if make_theirs is transformers.Qwen2Config:  # Qwen2 has no width of heads of its own
    assert theirs.config.head_dim == config.head_width
  with torch.no_grad():  # biases and norms start trivial: make them matter
    for parameter in theirs.parameters():
      parameter += 0.05 * torch.randn_like(parameter)
  return theirs.eval(), config


def tensors_of(theirs, config):
  found = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
  if config.tied:
    found.pop('lm_head.weight')
  return found


@pytest.mark.parametrize('hybrid', [False, True])
@pytest.mark.parametrize('family', FAMILIES)
def test_logits_are_those_of_transformers(family, hybrid):
  theirs, config = both(family)
  params = table.to_ours(tensors_of(theirs, config), config, VOCABULARY)
  model = transformer.Transformer(config, VOCABULARY)
  # Two packed documents, with a span in each where the mask is hybrid.
  sizes, spans = (8, 6), (np.array([[2, 6]]), np.array([[1, 4]]))
  documents, groups, start, end, at = [], [], [], [], 0
  for number, (size, span) in enumerate(zip(sizes, spans)):
    order = mask.order_groups(size, span if hybrid else span[:0])
    documents += [number] * size
    groups += order.tolist()
    start += [at] * size
    end += (at + mask.group_ends(order)).tolist()
    at += size
  ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, LENGTH))
  positions = np.array([[*range(sizes[0]), *range(sizes[1])]])
  ours = model.apply({'params': params}, ids, positions, np.array([start]), np.array([end]))
  visible = mask.visible(np.array(documents), np.array(groups))
  with torch.no_grad():
    wanted = theirs(
      input_ids=torch.tensor(ids),
      position_ids=torch.tensor(positions),
      attention_mask=torch.tensor(visible)[None, None],
      use_cache=False,
    ).logits
  np.testing.assert_allclose(ours[..., :VOCABULARY], wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
def test_there_and_back_is_bit_exact(family):
  theirs, config = both(family)
  tensors = tensors_of(theirs, config)
  params = table.to_ours(tensors, config, VOCABULARY)
  back = {name: make() for name, make in table.to_theirs(params, config, VOCABULARY)}
  assert set(back) == set(tensors)
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(back[name], tensor)


def test_the_tree_is_that_of_the_network():
  theirs, config = both('qwen3')
  params = table.to_ours(tensors_of(theirs, config), config, VOCABULARY)
  model = transformer.Transformer(config, VOCABULARY)
  ids = np.zeros((1, 2), np.int32)
  wanted = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  shapes = jax.tree.map(lambda leaf: leaf.shape, jax.tree.map(np.asarray, params))

  assert shapes == jax.tree.map(lambda leaf: leaf.shape, nn.unbox(wanted))


def test_everything_that_does_not_fit_is_listed_at_once():
  theirs, config = both('qwen2')
  tensors = tensors_of(theirs, config)
  tensors.pop('model.norm.weight')
  tensors['strange.weight'] = np.zeros(3)
  tensors['model.layers.1.mlp.up_proj.weight'] = np.zeros((2, 2))
  with pytest.raises(table.ConversionError) as error:
    table.to_ours(tensors, config, VOCABULARY)
  said = str(error.value)
  assert 'missing: model.norm.weight' in said and 'unexpected: strange.weight' in said
  assert 'model.layers.1.mlp.up_proj.weight: shape (2, 2), wanted (48, 32)' in said
