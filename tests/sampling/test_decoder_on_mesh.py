"""A decoder whose rows and parameters lie on several devices."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from conftest import make_config
from test_decoder import VOCABULARY

from ttt_jax import sharding
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder
from ttt_jax.training import state

SIZES = [
  {'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__sequence': 2},
  {'mesh__outer': 2, 'mesh__fsdp': 2, 'mesh__tensor': 2},
]


@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_a_mesh_for_rows_holds_the_same_parts_and_copies_none(sizes):
  config = make_config(**sizes)
  mesh = sharding.make_mesh(config.mesh)
  rows = sharding.of_rows(mesh)
  assert rows.shape['sequence'] == 1 and rows.size == mesh.size
  assert {axis: rows.shape[axis] for axis in ('outer', 'fsdp', 'tensor')} == {
    axis: mesh.shape[axis] for axis in ('outer', 'fsdp', 'tensor')
  }
  layout = state.layout(transformer.Transformer(config.model, 32), optax.sgd(1.0), mesh).params
  params = jax.tree.map(
    lambda leaf: jax.device_put(
      np.random.default_rng(0).normal(size=leaf.shape), leaf.sharding
    ),
    layout,
  )
  for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(sharding.moved(params, rows))):
    np.testing.assert_array_equal(old, new)
    addresses = [
      {shard.device: shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}
      for array in (old, new)
    ]
    assert addresses[0] == addresses[1]


@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_answers_are_those_of_one_device(sizes):
  config = make_config(**sizes)
  model = transformer.Transformer(dataclasses.replace(config.model, tied=False), 32)
  mesh = sharding.make_mesh(config.mesh)
  rule = optax.sgd(1.0)
  params = state.fresh(model, rule, mesh, state.layout(model, rule, mesh), 0).params
  params = jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 2 else leaf, params)
  sampling = dataclasses.replace(
    config.sampling, batch=4, text_temperature=0.5, max_text=4, max_audio=8
  )
  rng = np.random.default_rng(0)
  prompts = [rng.integers(0, 8, rng.integers(1, 20)) for _ in range(5)]  # one has to wait
  parts = model, VOCABULARY, sampling, config.mask
  one = decoder.Decoder(parts[0], jax.device_get(params), *parts[1:])
  rows = sharding.of_rows(mesh)
  several = decoder.Decoder(parts[0], sharding.moved(params, rows), *parts[1:], rows)
  expected = one(prompts)
  assert len({answer.tokens.tobytes() for answer in expected}) > 3
  for answer, wanted in zip(several(prompts), expected):
    np.testing.assert_array_equal(answer.tokens, wanted.tokens)
    assert answer.complete == wanted.complete
  other = one.with_params(jax.tree.map(np.zeros_like, jax.device_get(params)))
  shapes = list(one.compiled)
  assert [a.tokens.tolist() for a in other(prompts)] != [a.tokens.tolist() for a in expected]
  assert one(prompts)[0].tokens.tolist() == expected[0].tokens.tolist()
  assert len(set(one.compiled)) == len(one.compiled) >= len(shapes)
