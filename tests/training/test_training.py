import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from data_pipelines.stream import loader, rows
from ttt_jax import checkpoint, description, parameters, resuming, sharding
from ttt_jax import config as config_lib
from ttt_jax.model import transformer
from ttt_jax.training import metrics, optimizer, place, program, state, trace, train


def config_for(toy_data, **changes):
  return make_config(
    data__directory=str(toy_data), train__log_every=1, train__checkpoint_every=3, **changes
  )


def losses_of(workdir) -> list[float]:
  lines = pathlib.Path(workdir, 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['loss'] for line in lines]


def params_equal(a, b) -> bool:
  return all(
    (np.asarray(x) == np.asarray(y)).all()
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
  )


@pytest.fixture(scope='module')
def finished(toy_data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = config_for(toy_data, train__steps=6)
  return config, workdir, train.train(config, workdir, profiled=range(2, 4))


def test_resuming_is_bit_identical(finished, toy_data, tmp_path):
  config, workdir, last = finished
  # The same run, killed behind step 4: it is done again, since 3 is what was saved.
  stopped = StopAfter(5)
  with pytest.raises(Stopped):
    stopped.train(config, tmp_path)
  assert checkpoint.latest(tmp_path) == 3
  resumed = train.train(config, tmp_path)
  assert params_equal(resumed.params, last.params)
  assert losses_of(tmp_path) == losses_of(workdir)
  (redone,) = (tmp_path / metrics.REDONE).read_text().splitlines()
  assert json.loads(redone)['step'] == 4


class Stopped(Exception):
  pass


class StopAfter:
  """Trains, and breaks off after some batches."""

  def __init__(self, steps):
    self.steps = steps

  def train(self, config, workdir):
    original = loader.batches

    def broken(*args, **kwargs):
      for number, batch in enumerate(original(*args, **kwargs)):
        if number == self.steps:
          raise Stopped
        yield batch

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(loader, 'batches', broken)
      return train.train(config, workdir)


def test_a_finished_run_does_nothing_more_but_what_it_still_owes(finished, toy_data, tmp_path):
  _, workdir, last = finished
  before = losses_of(workdir)
  shutil.copytree(workdir, tmp_path / 'run')
  more = {'evaluation__every': 4, 'evaluation__suite': 'none.yaml'}
  config, asked = config_for(toy_data, train__steps=6, **more), []

  def judge(assets, mesh, step, params):
    asked.append((step, params_equal(params, last.params)))
    return {'evaluation/a': 1.0} if len(asked) == 2 else {}

  for _ in range(3):  # the first time, the disk is full
    again = train.train(config, tmp_path / 'run', judge=judge)
    assert params_equal(again.params, last.params)
  assert asked == [(6, True)] * 2
  *lines, judged = map(json.loads, (tmp_path / 'run' / metrics.FILE).open())
  assert [line['loss'] for line in lines] == before
  assert judged == {'step': 6, 'evaluation/a': 1.0}


def test_checkpoints_hold_params_as_an_item_of_their_own(finished):
  config, workdir, last = finished
  assert params_equal(parameters.restore(workdir), last.params)
  assert description.config_of(workdir) == config
  steps = sorted(p.name for p in (workdir / checkpoint.DIRECTORY).iterdir() if p.name.isdigit())
  assert steps == ['3', '6']


def test_metrics_are_complete(finished):
  _, workdir, _ = finished
  first, *_, line = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  wanted = {'step', 'loss', 'text_loss', 'audio_loss', 'audio_accuracy', 'fill'}
  wanted |= {'gradient_norm', 'learning_rate'}
  wanted |= {'step_seconds', 'tokens_per_second', 'data_wait', 'goodput'}
  assert wanted <= set(line)
  assert 'mfu' not in line  # nobody knows the peak of a CPU
  assert first['compile_seconds'] > 0 and 'compile_seconds' not in line
  assert 0 < line['goodput'] < 1 and 0 <= line['data_wait'] < 1
  assert any(name.startswith('audio_accuracy/0.') for name in line)
  assert list(workdir.glob('events.out.tfevents.*'))
  assert list((workdir / trace.DIRECTORY).rglob('*.xplane.pb'))


@pytest.mark.parametrize(
  'change',
  [
    'model__layers=3',
    'seed=7',
    'mask__audio=block',
    'data__row_length=64',
    'objective__ppm=0.5',
  ],
)
def test_another_run_in_the_folder_is_refused_and_changes_nothing(finished, toy_data, change):
  _, workdir, _ = finished
  before = (workdir / description.FILE).read_text()
  key, value = change.split('=')
  value = value if value == 'block' else float(value) if '.' in value else int(value)
  with pytest.raises(checkpoint.CheckpointError, match='another ' + key.replace('__', '.')):
    train.train(config_for(toy_data, train__steps=6, **{key: value}), workdir)
  assert (workdir / description.FILE).read_text() == before


def test_weights_of_data_sets_may_change_in_steps_to_come_alone(finished):
  config, workdir, _ = finished

  def start(*changes):
    data = dataclasses.replace(config.data, changes=changes)
    described = description.of(dataclasses.replace(config, data=data), *fingerprints)
    resuming.refuse_another(workdir, described)

  said = json.loads((workdir / description.FILE).read_text())
  fingerprints = said['vocabulary'], said['records'], said['packing']
  assert checkpoint.latest(workdir) == 6
  start((6, (1.0,)), (9, (2.0,)))
  with pytest.raises(checkpoint.CheckpointError, match='another data.changes'):
    start((5, (1.0,)), (9, (2.0,)))


def test_a_folder_that_another_run_has_made_its_own_meanwhile_is_refused(
  toy_data, tmp_path, monkeypatch
):
  alone, waits = place.alone, [True]

  @contextlib.contextmanager
  def held(workdir, patience):
    if waits and waits.pop():  # another run trains there, and ends
      train.train(config_for(toy_data, train__steps=1, seed=1), workdir)
    with alone(workdir, patience):
      yield

  monkeypatch.setattr(place, 'alone', held)
  with pytest.raises(checkpoint.CheckpointError, match='another seed'):
    train.train(config_for(toy_data, train__steps=2), tmp_path)
  assert json.loads((tmp_path / description.FILE).read_text())['config']['seed'] == 1


def test_another_vocabulary_in_the_folder_is_refused(finished):
  config, workdir, _ = finished
  with pytest.raises(checkpoint.CheckpointError, match='another vocabulary .*now other'):
    resuming.refuse_another(workdir, description.of(config, 'other'))


def test_a_failed_start_leaves_the_description_alone(finished, toy_data):
  _, workdir, _ = finished
  before = (workdir / description.FILE).read_text()
  with pytest.raises(config_lib.ConfigError):
    train.train(config_for(toy_data, train__steps=6, mesh__data=3), workdir)
  assert (workdir / description.FILE).read_text() == before


def test_folders_that_cannot_be_used_are_named(toy_data, tmp_path):
  (tmp_path / 'file').write_text('in the way')
  with pytest.raises(checkpoint.CheckpointError, match='cannot write to .*file/run'):
    train.train(config_for(toy_data, train__steps=2), tmp_path / 'file' / 'run')
  with pytest.raises(config_lib.ConfigError, match='not a folder'):
    train.train(config_for(toy_data, train__steps=2), 'gs://bucket/run')
  with pytest.raises(checkpoint.CheckpointError, match='no checkpoint'):
    parameters.restore(tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match='config.json'):
    description.config_of(tmp_path)


def run_steps(source, config, devices, steps):
  """Sums and gradient norms of some steps on a mesh of `devices`; parameters; shardings."""
  mesh = sharding.make_mesh(config.mesh, devices)
  vocabulary = source.assets.vocabulary
  model, rule, layout, step = program.assemble(config, vocabulary, mesh)
  current = state.fresh(model, rule, mesh, layout, 0)
  made = rows.Rows([source], config.data, config.mask, config.objective, 0)
  out = []
  for batch in loader.batches(made, config.data.batch_size, steps):
    batch = sharding.put_batch(batch, mesh, config.data.batch_size)
    current, results = step(current, batch)
    out.append((results.sums, float(results.norm)))
  return out, jax.device_get(current.params), state.shardings_of(layout)


@functools.cache
def on_one_device(source, name):
  config = make_config(optimizer__name=name, model__attention='dense', mesh__data=1)
  return run_steps(source, config, jax.devices()[:1], 2)[:2]


@pytest.mark.parametrize(
  'name,attention,mesh',
  [
    ('adamw', 'chunked', {'fsdp': 2, 'sequence': 2, 'tensor': 2}),
    ('muon', 'dense', {'data': 2, 'fsdp': 2, 'tensor': 2}),
    ('adamw', 'dense', {'fsdp': 2, 'sequence': 4}),
    ('adamw', 'chunked', {'outer': 2, 'fsdp': 4}),
    ('adamw', 'dense', {'slices': 2, 'fsdp': 2, 'tensor': 2}),
    ('adamw', 'chunked', {'slices': 2, 'data': 2, 'sequence': 2}),
  ],
)
def test_eight_devices_agree_with_one(source, name, attention, mesh):
  changes = {'optimizer__name': name, 'model__attention': attention}
  alone, params = on_one_device(source, name)
  mesh = {'data': 1, 'sequence': 1} | mesh
  spread = make_config(**changes, **{f'mesh__{axis}': n for axis, n in mesh.items()})
  many, sharded, shardings = run_steps(source, spread, jax.devices(), 2)
  for (sums, norm), (more, also) in zip(alone, many):
    np.testing.assert_allclose(sums.objective, more.objective, rtol=2e-5)
    np.testing.assert_allclose(norm, also, rtol=2e-5)
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(sharded)):
    np.testing.assert_allclose(a, b, atol=2e-4)
  gate = shardings.params['layers']['mlp']['gate'].spec
  assert gate == jax.sharding.PartitionSpec(None, ('fsdp', 'outer'), 'tensor')


def test_two_streams_are_cut_as_one_is(source):
  two = {'objective__layout': 'two_stream', 'objective__banom': 0.0, 'objective__ppm': 0.0}
  two |= {'mask__audio': 'block', 'model__attention': 'chunked', 'data__row_length': 256}
  alone, *_ = run_steps(source, make_config(**two, mesh__data=1), jax.devices()[:1], 1)
  sizes = {'mesh__data': 1, 'mesh__fsdp': 2, 'mesh__sequence': 2, 'mesh__tensor': 2}
  many, *_ = run_steps(source, make_config(**two, **sizes), jax.devices(), 1)
  for (sums, norm), (more, also) in zip(alone, many):
    assert float(sums.objective) > 0
    np.testing.assert_allclose(sums.objective, more.objective, rtol=2e-5)
    np.testing.assert_allclose(norm, also, rtol=2e-5)


@pytest.mark.parametrize('mesh', [{'mesh__data': 1}, {'mesh__data': 2, 'mesh__fsdp': 2}])
def test_a_batch_in_parts_is_the_same_step(source, mesh):
  devices = jax.devices()[: 4 if len(mesh) > 1 else 1]
  outcomes = []
  for parts in (1, 2):
    config = make_config(**mesh, train__accumulate=parts)
    outcomes.append(run_steps(source, config, devices, 2))
  (whole, params, _), (split, also, _) = outcomes
  for (sums, norm), (more, other) in zip(whole, split):
    np.testing.assert_allclose(norm, other, rtol=1e-5)
    for a, b in zip(sums, more):
      np.testing.assert_allclose(a, b, rtol=1e-5)
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(also)):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_training_learns(source):
  config = make_config(optimizer__learning_rate=1e-2, optimizer__warmup_steps=2)
  steps, _, _ = run_steps(source, config, jax.devices(), 30)
  found = [float(sums.text_loss / sums.text_count) for sums, _ in steps]
  assert found[-1] < 0.6 * found[0]


def test_meshes_that_do_not_fit_the_devices_are_refused():
  with pytest.raises(config_lib.ConfigError, match='does not make 8 devices'):
    sharding.make_mesh(make_config(mesh__data=3).mesh)
  assert sharding.make_mesh(make_config(mesh__tensor=2).mesh).shape['data'] == 4


def test_batches_and_models_that_cannot_be_cut_are_refused():
  mesh = sharding.make_mesh(make_config(mesh__data=2, mesh__tensor=4).mesh)
  with pytest.raises(config_lib.ConfigError, match='config.data.batch_size is 7'):
    sharding.rows_of_process(mesh, 7)
  assert sharding.rows_of_process(mesh, 8).tolist() == list(range(8))
  sharding.check_batch(mesh, 8, 64, 4)
  with pytest.raises(config_lib.ConfigError, match='train.accumulate .* = 8 . 2'):
    sharding.check_batch(mesh, 8, 64, 8)
  across = sharding.make_mesh(make_config(mesh__sequence=8).mesh)
  with pytest.raises(config_lib.ConfigError, match='row_length is 65, .*mesh.sequence = 8'):
    sharding.check_batch(across, 8, 65, 1)
  with pytest.raises(config_lib.ConfigError, match='config.model.kv_heads is 2'):
    sharding.check_model(make_config().model, mesh)


@pytest.mark.parametrize('name', ['adamw', 'muon'])
def test_decay_moves_matrices_alone(name):
  config = make_config(optimizer__name=name, optimizer__weight_decay=0.5).optimizer
  model = transformer.Transformer(make_config().model, 50)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  rule = optimizer.make(config, 10)
  zeros = jax.tree.map(np.zeros_like, params)
  moments = rule.init(params)
  for _ in range(2):  # the rate of the first step is 0
    updates, moments = rule.update(zeros, moments, params)
  for path, update in jax.tree_util.tree_leaves_with_path(updates):
    last = path[-1].key
    still = last == 'scale' or last.endswith('_bias')
    assert (np.abs(update).max() == 0) == still, path


def test_muon_orthogonalizes_the_updates_of_matrices():
  model = transformer.Transformer(make_config().model, 50)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  rng = np.random.default_rng(0)
  gradient = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
  spread = {}
  for name in ('adamw', 'muon'):
    rule = optimizer.make(make_config(optimizer__name=name).optimizer, 10)
    moments = rule.init(params)
    for _ in range(2):  # the rate of the first step is 0
      updates, moments = rule.update(gradient, moments, params)
    layers = updates['layers']
    out = layers['attention']['out'][0].reshape(-1, 32)
    values = [np.linalg.svd(x, compute_uv=False) for x in (layers['mlp']['gate'][0], out)]
    spread[name] = max(float(v.max() / v.min()) for v in values)
  assert spread['muon'] < 2 < spread['adamw']


def test_weight_decay_knows_matrices():
  model = transformer.Transformer(make_config().model, 50)
  ids = np.zeros((1, 2), np.int32)
  params = jax.eval_shape(model.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  decays = optimizer.is_matrix(params)
  attention = decays['layers']['attention']
  flat = {name: jax.tree.leaves(leaf)[0] for name, leaf in attention.items()}
  assert flat['q'] and flat['out'] and not flat['q_bias'] and not flat['v_bias']
  assert not jax.tree.leaves(decays['norm'])[0]
  assert jax.tree.leaves(decays['embedding'])[0]


def test_learning_rate_warms_up_and_falls_to_its_floor():
  c = make_config(optimizer__learning_rate=1.0, optimizer__warmup_steps=10).optimizer
  rate = optimizer.learning_rate(c, 100)
  np.testing.assert_allclose([rate(0), rate(5), rate(10)], [0, 0.5, 1], atol=1e-6)
  np.testing.assert_allclose(rate(100), c.final_fraction, atol=1e-6)
  np.testing.assert_allclose(rate(55), (1 + c.final_fraction) / 2, atol=1e-6)
