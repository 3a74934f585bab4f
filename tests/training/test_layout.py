"""What lies whole on several devices, and why: everything else is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.training import optimizer, program

MESH = {'mesh__data': 1, 'mesh__fsdp': 2, 'mesh__sequence': 2, 'mesh__tensor': 2}


def assembled(assets, **changes):
  config = make_config(**MESH, **changes)
  mesh = sharding.make_mesh(config.mesh)
  return mesh, program.assemble(config, assets.vocabulary, mesh)


def axes_that_cut(spec):
  return {name for part in spec for name in ((part,) if isinstance(part, str) else part or ())}


@pytest.mark.parametrize('rule', ['adamw', 'muon'])
def test_state_that_is_whole_is_small(assets, rule):
  changes = {'model__qkv_bias': True, 'model__qk_norm': True, 'model__tied': False}
  _, made = assembled(assets, optimizer__name=rule, **changes)
  whole = {'fsdp': set(), 'tensor': set()}
  for path, leaf in jax.tree_util.tree_flatten_with_path(made.layout)[0]:
    name = optimizer.name_of(path).rsplit('/', 1)[-1]
    for axis, names in whole.items():
      if leaf.size > 5 and axis not in axes_that_cut(leaf.sharding.spec):
        names.add((name, leaf.ndim))
  # Everywhere: counts, the few coefficients of Muon, and the scales of a head's width, which
  # all heads share. Along `fsdp` also biases, which have no model width.
  everywhere = {('scale', 2)}
  biases = {(f'{name}_bias', 3) for name in 'qkv'}
  assert whole['fsdp'] - everywhere == biases
  # Along `tensor` also the norms of the model width, which every device needs whole.
  assert whole['tensor'] - everywhere <= {('scale', 1)}
  for part in (made.layout.params, made.layout.optimizer):
    cut = [
      (leaf.size, np.prod(leaf.sharding.shard_shape(leaf.shape)))
      for leaf in jax.tree.leaves(part)
    ]
    total, here = np.sum(cut, 0)
    assert here < 1.02 * total / 4


def test_every_array_of_a_batch_is_cut(assets):
  mesh, _ = assembled(assets)
  for name, where in sharding.of_batch(mesh)._asdict().items():
    rows, *positions = where.spec
    assert rows == sharding.ROWS
    assert positions == ([] if name == 'normalizer' else ['sequence'])
  assert set(sharding.of_batch(mesh)._fields) == set(batch_lib.Batch._fields)


def test_hidden_states_stay_cut(assets):
  """Without a word on the result, the partitioner leaves it as the layers have it."""
  mesh, made = assembled(assets)
  shape = (8, 128)
  arrays = [jax.ShapeDtypeStruct(shape, jnp.int32)] * 4
  where = sharding.of_batch(mesh).inputs

  def hidden(params, *view):
    return made.model.apply({'params': params}, *view, method='hidden')

  shardings = jax.tree.map(lambda leaf: leaf.sharding, made.layout.params)
  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
    jitted = jax.jit(hidden, in_shardings=(shardings, *[where] * 4))
    compiled = jitted.lower(made.layout.params, *arrays).compile()
  (out,) = jax.tree.leaves(compiled.output_shardings)
  assert out.shard_shape((*shape, 32)) == (4, 64, 32)


def test_slices_are_runs_of_devices_that_have_none():
  mesh = sharding.make_mesh(make_config(mesh__slices=2, mesh__tensor=2).mesh)
  assert dict(mesh.shape) == {
    'slices': 2,
    'data': 2,
    'outer': 1,
    'fsdp': 1,
    'sequence': 1,
    'tensor': 2,
  }
  ids = np.vectorize(lambda device: device.id)(mesh.devices)
  assert ids[0].max() < ids[1].min()


class Chip:
  """Stands for a device of a TPU with several slices."""

  platform = device_kind = 'test'

  def __init__(self, number, slice_index):
    self.id, self.slice_index, self.process_index = number, slice_index, 0


def test_slices_that_the_devices_have_are_kept_apart():
  chips = [Chip(number, number % 2) for number in range(8)]
  mesh = sharding.make_mesh(make_config(mesh__slices=2, mesh__fsdp=2).mesh, chips)
  assert {chip.slice_index for chip in mesh.devices[0].flat} == {0}
  assert {chip.slice_index for chip in mesh.devices[1].flat} == {1}
  for slices in (1, 4):
    with pytest.raises(config_lib.ConfigError, match=f'mesh.slices is {slices}.*of 2 slices'):
      sharding.make_mesh(make_config(mesh__slices=slices).mesh, chips)
