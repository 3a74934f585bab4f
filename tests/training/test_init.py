"""Runs that start from the parameters of another, and train a part of them."""

import json

import jax
import ml_dtypes
import numpy as np
import optax
import pytest
from conftest import make_config

from data_pipelines.stream import loader, rows
from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, description, parameters
from ttt_jax import config as config_lib
from ttt_jax.model import transformer
from ttt_jax.training import step, train


def config_for(toy_data, **changes):
  changes = {'train__steps': 2, 'optimizer__learning_rate': 1e-2} | changes
  return make_config(data__directory=str(toy_data), **changes)


@pytest.fixture(scope='module')
def trained(toy_data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('first')
  train.train(config_for(toy_data), workdir)
  return workdir


@pytest.fixture(scope='module')
def given(trained, assets, tmp_path_factory):
  """Those parameters as a converted checkpoint has them: numpy, in bfloat16, as step 0."""
  folder = tmp_path_factory.mktemp('given')
  config = description.config_of(trained)
  params = jax.tree.map(
    lambda leaf: np.asarray(leaf).astype(ml_dtypes.bfloat16), parameters.restore(trained)
  )
  about = description.of(config, assets.vocabulary.fingerprint)
  description.write(folder, about, assets)
  parameters.save(folder, params, about)
  return folder, params


@pytest.mark.parametrize(
  'mesh',
  [{'mesh__data': 2, 'mesh__fsdp': 2, 'mesh__tensor': 2}, {'mesh__fsdp': -1, 'mesh__data': 1}],
)
def test_a_run_starts_from_another_on_any_mesh(given, toy_data, tmp_path, mesh):
  folder, params = given
  # A learning rate of almost nothing: what comes out is what went in.
  changes = {'init__checkpoint': str(folder), 'optimizer__learning_rate': 1e-30}
  state = train.train(config_for(toy_data, **changes, **mesh), tmp_path)
  for wanted, got in zip(jax.tree.leaves(params), jax.tree.leaves(state.params)):
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted.astype(np.float32))
  gate = state.params['layers']['mlp']['gate']
  assert gate.sharding.spec == jax.sharding.PartitionSpec(None, ('fsdp', 'outer'), 'tensor')


def test_devices_read_their_parts(given, assets, tmp_path, monkeypatch):
  monkeypatch.setattr(parameters, '_CHUNK_BYTES', 2**10)
  folder, params = tmp_path, given[1]
  about = description.of(description.config_of(given[0]), 'vocabulary')
  description.write(folder, about, assets)
  parameters.save(folder, params, about)
  # A part that a device reads is whole chunks, so that it reads little else.
  stored = parameters.shapes(folder, 0)['embedding'].storage.chunk_shape
  assert np.prod(stored) * 2 <= 2**10 < params['embedding'].nbytes
  mesh = jax.make_mesh((8,), ('x',))
  where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('x'))
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def like(path, leaf):
    cut = path[-1].key == 'embedding'
    return jax.ShapeDtypeStruct(leaf.shape, np.float32, sharding=where if cut else whole)

  restored = parameters.restore(folder, jax.tree_util.tree_map_with_path(like, params))
  rows = len(params['embedding']) // 8
  assert {s.data.shape[0] for s in restored['embedding'].addressable_shards} == {rows}
  np.testing.assert_array_equal(restored['embedding'], params['embedding'].astype(np.float32))


def test_one_parameter_is_read_alone(given):
  folder, params = given
  got = parameters.read(folder, 0, ('layers', 'mlp', 'gate'))
  assert isinstance(got, np.ndarray)
  np.testing.assert_array_equal(got, params['layers']['mlp']['gate'])
  with pytest.raises(checkpoint.CheckpointError, match='no parameter layers/nothing'):
    parameters.read(folder, 0, ('layers', 'nothing'))


def test_a_resumed_run_does_not_start_over(given, toy_data, tmp_path):
  config = config_for(toy_data, init__checkpoint=str(given[0]))
  first = train.train(config, tmp_path)
  again = train.train(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


def test_another_model_is_refused_with_the_flags_that_mend_it(given, toy_data, tmp_path):
  config = config_for(toy_data, init__checkpoint=str(given[0]), model__layers=3)
  with pytest.raises(
    config_lib.ConfigError, match='add --config.model.layers=2 .or train with'
  ):
    train.train(config, tmp_path)


def test_another_vocabulary_is_refused(given, toy_data, assets, tmp_path):
  folder, params = given
  other = assets._replace(tokenizer=assets.tokenizer.added(['<x>']))
  about = description.of(description.config_of(folder), 'other')
  description.write(tmp_path / 'other', about, other)
  parameters.save(tmp_path / 'other', params, about)
  config = config_for(toy_data, init__checkpoint=str(tmp_path / 'other'))
  with pytest.raises(assets_lib.AssetError, match='other was made with tokenizer'):
    train.train(config, tmp_path / 'run')


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_what_is_frozen_stays_and_has_no_state(toy_data, given, tmp_path, name):
  config = config_for(
    toy_data,
    init__checkpoint=str(given[0]),
    train__freeze='layers|^norm',
    optimizer__name=name,
    optimizer__warmup_steps=1,
  )
  state = train.train(config, tmp_path)
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    wanted = given[1]
    for key in path:
      wanted = wanted[key.key]
    still = (np.asarray(leaf) == wanted.astype(np.float32)).all()
    assert still == (path[0].key != 'embedding'), path
  moments = [leaf.shape for leaf in jax.tree.leaves(state.optimizer) if leaf.ndim > 1]
  assert moments == [state.params['embedding'].shape] * 2
  assert train.train(config, tmp_path).step == 2  # and it is restored so


def test_what_is_frozen_gets_no_gradient(toy_data, given, source, tmp_path):
  config = config_for(
    toy_data, train__freeze='layers', train__log_every=1, init__checkpoint=str(given[0])
  )
  train.train(config, tmp_path)
  first = json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[0])
  params = jax.tree.map(lambda leaf: leaf.astype(np.float32), given[1])
  made = rows.Rows([source], config.data, config.mask, config.objective, config.seed)
  (batch,) = loader.batches(made, config.data.batch_size, 1)
  model = transformer.Transformer(config.model, source.assets.vocabulary.size)

  def loss(trained):
    whole = {**params, **trained}
    return step.loss(model, source.assets.vocabulary, config.objective, whole, batch)[0]

  trained = {key: params[key] for key in ('embedding', 'norm')}
  wanted = optax.global_norm(jax.grad(loss)(trained))
  np.testing.assert_allclose(first['gradient_norm'], wanted, rtol=1e-4)


@pytest.mark.parametrize(
  'pattern,said',
  [('nothing', 'freezes no parameter; there are: embedding, layers/'), ('.', 'freezes all')],
)
def test_patterns_that_freeze_nothing_or_all_are_refused(toy_data, tmp_path, pattern, said):
  with pytest.raises(config_lib.ConfigError, match=said):
    train.train(config_for(toy_data, train__freeze=pattern), tmp_path)


def test_a_broken_pattern_is_refused():
  with pytest.raises(config_lib.ConfigError, match='no regular expression'):
    make_config(train__freeze='(')
