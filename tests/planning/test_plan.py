"""Plans of small steps, compiled for real topologies."""

import dataclasses
import hashlib
import json
import re

import jax
import numpy as np
import pytest
from conftest import make_config
from machines import by_libtpu

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.model import formula, transformer
from ttt_jax.planning import plan as plan_lib
from ttt_jax.planning import report, sweep, topologies

VOCABULARY = plan_lib.assumed(3000, 1000)
ROWS = formula.Rows(visible=128.0, targets=0.5, fill=0.9)


def config(**changes):
  shape = {'layers': 3, 'width': 256, 'heads': 2, 'kv_heads': 2, 'head_width': 128}
  shape |= {'mlp_width': 512, 'vocabulary_multiple': 64, 'dtype': 'bfloat16'}
  sizes = {'data__row_length': 256, 'mesh__data': 1, 'mesh__outer': 2, 'mesh__fsdp': 2}
  sizes |= {f'model__{key}': value for key, value in shape.items()}
  return make_config(**sizes | changes)


@pytest.fixture(scope='module')
def made():
  settings = config(model__loss_chunk=128, model__remat='none')
  return settings, plan_lib.make(settings, VOCABULARY, 'v5e:2x2', ROWS)


@by_libtpu
def test_a_step_that_computes_nothing_anew_does_the_work_of_the_formula(made):
  settings, plan = made
  # But for the scores, which the backward kernels compute anew: 18 operations, not 12; and for
  # padding, which needs no work and gets it.
  attention = formula.attention(settings.model, ROWS, 18 - 12) * plan.positions
  padding = 6 * formula.weights(settings.model) * (1 - ROWS.fill) * plan.positions
  assert plan.compiled == pytest.approx(plan.needed + attention + padding, rel=1e-3)


@by_libtpu
def test_what_is_sent_is_what_fsdp_must_send(made):
  _, plan = made
  assert plan.mesh['outer'] == plan.mesh['fsdp'] == 2
  total = sum(item.sent for item in plan.traffic)
  # Two stages of two send 3/4 of each gradient as one of four would, and norms a little more.
  assert 0.95 < total / plan.least_sent < 1.2
  assert {axis for item in plan.traffic for axis in item.axes} == {'outer', 'fsdp'}


@by_libtpu
def test_state_is_cut_and_fits(made):
  settings, plan = made
  assert plan.devices == 4
  assert plan.fits
  assert 3 * 4 * plan.parameters / 4 < plan.state < 1.2 * 3 * 4 * plan.parameters / 4
  bounds = plan.bounds
  assert plan.seconds == max(bounds.values())
  assert plan.tokens_per_second == pytest.approx(
    settings.data.batch_size * 256 * 0.9 / plan.seconds
  )


@by_libtpu
def test_a_plan_survives_json_and_is_kept(made, tmp_path, monkeypatch):
  settings, plan = made
  assert plan_lib.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
  monkeypatch.setattr(plan_lib, 'make', lambda *_: plan)
  how = VOCABULARY, 'v5e:2x2', ROWS, tmp_path
  assert sweep.kept(settings, *how) == plan
  monkeypatch.setattr(plan_lib, 'make', lambda *_: pytest.fail('it was kept'))
  assert sweep.kept(settings, *how) == plan
  other = dataclasses.replace(settings, seed=1)
  with pytest.raises(BaseException, match='it was kept'):
    sweep.kept(other, *how)
  monkeypatch.setenv('LIBTPU_INIT_ARGS', '--xla_tpu_rwb_fusion=false')
  sweep._versions.cache_clear()
  with pytest.raises(BaseException, match='it was kept'):
    sweep.kept(settings, *how)
  sweep._versions.cache_clear()


def rehashed(old, new):
  """A change by somebody who can compute the hash, too."""

  def change(text):
    values = text.partition('\n')[2].replace(old, new)
    return f'{hashlib.sha256(values.encode()).hexdigest()}\n{values}'

  return change


@by_libtpu
@pytest.mark.parametrize(
  'damage',
  [
    lambda text: text[:100],
    lambda text: '{}',
    rehashed('"devices": 4', '"devices": 0'),
    rehashed('"devices": 4', '"devices": "4"'),
    rehashed('"share": 1.0', '"share": NaN'),
    rehashed('"v5e:2x2"', '"v5e:2x"'),
    rehashed('"topology"', '"topography"'),
    rehashed('}', ''),
  ],
)
def test_a_damaged_plan_is_made_again(made, tmp_path, monkeypatch, damage):
  settings, plan = made
  monkeypatch.setattr(plan_lib, 'make', lambda *_: plan)
  how = VOCABULARY, 'v5e:2x2', ROWS, tmp_path
  sweep.kept(settings, *how)
  (file,) = tmp_path.iterdir()
  good = file.read_text()
  file.write_text(damage(good))
  assert sweep.kept(settings, *how) == plan
  assert file.read_text() == good


@by_libtpu
def test_what_does_not_fit_is_told_with_what_to_change():
  settings = config(data__batch_size=8192, data__row_length=2048, model__remat='none')
  plan = plan_lib.make(settings, VOCABULARY, 'v5e:2x2', ROWS)
  assert not plan.fits
  assert plan.used > plan.memory
  said = report.text(plan)
  assert 'DOES NOT FIT' in said
  assert '--config.train.accumulate=2048' in said
  assert '--config.model.remat=full' in said
  # Nothing is made up of what is not known.
  assert plan.to_dict()['mfu'] is plan.to_dict()['bounds'] is None


@by_libtpu
def test_advice_can_be_followed(made):
  """Each is a mesh of as many devices, and parts that make up the batch."""
  _, plan = made
  mesh = {'slices': 2, 'data': 4, 'outer': 2, 'fsdp': 8, 'sequence': 1, 'tensor': 2}
  plan = dataclasses.replace(plan, devices=256, mesh=mesh, batch=(128, 256, 1))
  seen = 0
  for advice in report.mend(plan):
    flags = dict(re.findall(r'--config\.([\w.]+)=(\d+)', advice))
    sizes = mesh | {axis: int(flags.get(f'mesh.{axis}', size)) for axis, size in mesh.items()}
    ways = np.prod([sizes[axis] for axis in sharding.ROWS])
    assert np.prod(list(sizes.values())) == plan.devices
    assert plan.batch[0] % (ways * int(flags.get('train.accumulate', 1))) == 0
    seen += any(name.startswith('mesh.') for name in flags)
  assert seen == 2


@by_libtpu
@pytest.mark.parametrize('topology', ['v5e:1x1', 'v5e:2x2', 'v5e:16x16*2', 'v5p:2x2x3'])
def test_a_sweep_tries_meshes_that_there_are_and_none_twice(topology):
  devices = topologies.devices(topology)
  tried = list(sweep.candidates(config(), topology, (3,)))
  assert len(set(tried)) == len(tried) > 0
  for one in {one.mesh: one for one in tried}.values():
    mesh = sharding.make_mesh(one.mesh, devices)
    assert one.data.batch_size == 3 * sharding.rows_of(mesh)
  assert {one.model.remat for one in tried} == set(sweep.REMATS)
  meshes = {one.mesh for one in tried}
  assert any(mesh.data > 1 for mesh in meshes) == (len(devices) > 1)
  if topology == 'v5e:16x16*2':
    assert config_lib.Mesh(2, 1, 16, 16, 1, 1) in meshes and len(meshes) < 20


def test_attention_of_other_devices_is_refused():
  with pytest.raises(config_lib.ConfigError, match='attention'):
    plan_lib.make(config(model__attention='gpu'), VOCABULARY, 'v5e:2x2', ROWS)


@by_libtpu
def test_reports_have_all_plans(made):
  _, plan = made
  worse = dataclasses.replace(plan, temporaries=10**12, compiled=0.0, traffic=())
  assert report.ranked([worse, plan]) == [plan, worse]
  table = report.table([plan, worse])
  assert len(table.splitlines()) == 4
  assert f'{plan.mfu:.0%}' in table
  picture = report.drawing([plan, worse])
  assert picture.count('class="limit"') == 2
  assert picture.count('class="over"') == 1
  # A label ends before the bars begin, at half an em a letter or more.
  label = f'{worse.topology} {report.mesh(worse)[5:]} {worse.batch[0]}×{worse.batch[1]} none'
  long = dataclasses.replace(worse, topology='v5e:16x16*2' * 5)
  for one in (worse, long):
    bars = float(re.search(r'class="state" x="([\d.]+)"', report.drawing([one]))[1])
    assert bars > 6 * (len(label) + len(one.topology) - len(worse.topology))
  assert f'MFU {plan.mfu:.0%}' in report.text(plan)


@by_libtpu
def test_slices_are_planned_for():
  settings = config(mesh__slices=2, mesh__outer=1, mesh__fsdp=4, data__batch_size=8)
  plan = plan_lib.make(settings, VOCABULARY, 'v5e:2x2*2', ROWS)
  apart = [item for item in plan.traffic if 'slices' in item.axes]
  # Gradients alone go from slice to slice: once each, cut by the devices of a slice.
  most = 1.1 * 4 * plan.parameters / 4
  assert {item.kind for item in apart} == {'all-reduce'}
  assert 0.5 * most < sum(item.sent for item in apart) < most
  assert plan.bounds['network'] > 0


def test_weights_are_counted_as_the_model_has_them(assets):
  model = make_config(model__tied=False).model
  network = transformer.Transformer(model, assets.vocabulary.size)
  ids = np.zeros((1, 2), np.int32)
  params = jax.eval_shape(network.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  matrices = [
    leaf.size
    for path, leaf in jax.tree_util.tree_flatten_with_path(params['layers'])[0]
    if any(
      getattr(key, 'key', '') in ('q', 'k', 'v', 'out', 'gate', 'up', 'down') for key in path
    )
  ]
  assert formula.weights(model) == sum(matrices)


def test_rows_are_measured():
  batch = batch_lib.empty(8)
  batch.kv_end[:4] = [1, 2, 4, 4]
  batch.weights[:2] = 0.5
  rows = formula.measured(jax.tree.map(lambda a: a[None], batch))
  assert rows == (11 / 8, 0.25, 0.5)
  assert formula.mean([rows, formula.Rows(0.0, 0.75, 0.5)]) == (11 / 16, 0.5, 0.5)


def test_fsdp_must_send_all_but_its_own_part():
  model = make_config().model
  weights = formula.weights(model)
  found = formula.gathered(model, weights + 1000, 4, 2, 4)
  assert found == pytest.approx(0.75 * (8 * weights + 6 * 1000))
