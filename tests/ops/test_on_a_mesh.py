"""Lookups and products whose arrays lie in parts on a mesh, against those on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttt_jax.ops import axes as axes_lib
from ttt_jax.ops import embedding
from ttt_jax.ops import product as product_lib

ROWS, WIDTH, B, L = 16, 6, 8, 4
AXES = {
  'cut and stored': axes_lib.Axes(('data', 'fsdp'), (), ('tensor',), ('fsdp',)),
  'stored twice': axes_lib.Axes(('data', 'fsdp'), (), ('tensor',), ('fsdp', 'data')),
  'stored': axes_lib.Axes(('data', 'fsdp'), (), (), ('fsdp',)),
  'cut': axes_lib.Axes(('data',), ('fsdp',), ('tensor',), ()),
  'stored along positions': axes_lib.Axes(('data',), ('fsdp',), (), ('fsdp',)),
  'whole': axes_lib.Axes(('data', 'fsdp', 'tensor')),
}


@pytest.fixture(scope='module')
def mesh():
  types = (jax.sharding.AxisType.Auto,) * 3
  return jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=types)


def draw(seed=0):
  rng = np.random.default_rng(seed)
  table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
  ids = rng.integers(0, ROWS, (B, L)).astype(np.int32)
  ids[:, 0] = 3  # one that is frequent, as the mask is
  return table, ids, rng.normal(size=(B, L, WIDTH)).astype(np.float32)


def value_and_gradient(table, ids, weight, *how):
  def total(table):
    out = embedding.lookup(table, ids, *how)
    return jnp.sum(out.astype(jnp.float32) * weight), out

  return jax.jit(jax.value_and_grad(total, has_aux=True))(table)


@pytest.mark.parametrize('axes', AXES.values(), ids=AXES.keys())
def test_a_lookup_in_parts_is_the_lookup(mesh, axes):
  table, ids, weight = draw()
  wanted = np.zeros_like(table)
  np.add.at(wanted, ids, weight)
  for on in (axes_lib.Axes(), axes):
    with jax.set_mesh(mesh):
      (_, out), gradient = value_and_gradient(table, ids, weight, 'float32', 'float32', on)
    np.testing.assert_array_equal(out, table[ids])
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-6)


def test_a_table_stored_along_other_axes_is_refused():
  table, ids, _ = draw()
  axes = axes_lib.Axes(('data',), (), (), ('fsdp',))
  with pytest.raises(ValueError, match='stored along'):
    embedding.lookup(table, ids, 'float32', 'float32', axes)


def test_the_gradient_of_a_frequent_id_does_not_drown():
  # 1 + 4,095 / 512: in bfloat16 the sum would stop at 1, as half a step is lost each time.
  weight = np.full((1, 4096, 1), 1 / 512, np.float32)
  weight[0, 0] = 1
  ids, table = np.zeros((1, 4096), np.int32), np.zeros((2, 1), np.float32)
  how = 'bfloat16', 'bfloat16', axes_lib.Axes()
  _, gradient = value_and_gradient(table, ids, weight, *how)
  np.testing.assert_allclose(gradient[0, 0], 1 + 4095 / 512, rtol=1e-6)


AXES_OF = {
  'BLD,DNH->BLNH': ('embed', 'heads', 'head'),
  'BLNH,NHD->BLD': ('heads', 'head', 'embed'),
  'BLD,DF->BLF': ('embed', 'mlp'),
}


@pytest.mark.parametrize(
  'spec,shapes',
  [
    ('BLD,DNH->BLNH', ((2, 3, 4), (4, 5, 6))),
    ('BLNH,NHD->BLD', ((2, 3, 5, 6), (5, 6, 4))),
    ('BLD,DF->BLF', ((2, 3, 4), (4, 7))),
  ],
)
def test_a_product_is_the_einsum(spec, shapes):
  rng = np.random.default_rng(0)
  x, weight = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
  out, pull = jax.vjp(
    lambda *a: product_lib.product(spec, *a, AXES_OF[spec], 'float32'), x, weight
  )
  wanted, pull_wanted = jax.vjp(lambda *a: jnp.einsum(spec, *a), x, weight)
  np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)
  for one, other in zip(pull(out), pull_wanted(wanted)):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_devices_add_up_in_the_dtype_that_is_asked_for():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(8, 64, 16)).astype(jnp.bfloat16)
  cotangent = rng.normal(size=(8, 64, 8)).astype(jnp.bfloat16)
  exact = np.einsum('BLD,BLF->DF', x.astype(np.float64), cotangent.astype(np.float64))

  def error(dtype):
    weight = np.zeros((16, 8), np.float32)
    _, pull = jax.vjp(
      lambda w: product_lib.product('BLD,DF->BLF', x, w, ('embed', 'mlp'), dtype), weight
    )
    (gradient,) = pull(jnp.asarray(cotangent))
    assert gradient.dtype == np.float32
    return np.abs(gradient - exact).max() / np.abs(exact).max()

  assert error('float32') < 1e-6 < 1e-4 < error('bfloat16')
