"""Attention on eight virtual devices, against one."""

import functools

import attention_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.model import transformer
from ttt_jax.ops import attention
from ttt_jax.ops.attention import sharded


def on_mesh(data=1, fsdp=1, sequence=1, tensor=1):
  return sharding.make_mesh(config_lib.Mesh(1, data, 1, fsdp, sequence, tensor))


@pytest.mark.parametrize(
  'implementation,shape',
  [('chunked', (2, 1, 2, 2)), ('tpu', (2, 1, 2, 2)), ('gpu', (1, 2, 4, 1))],
)
def test_rows_heads_and_queries_are_cut_and_nothing_changes(implementation, shape):
  rng = np.random.default_rng(0)
  visible = np.stack([oracle.row(rng, 64, 2) for _ in range(4)])
  *arrays, gradient = oracle.arrays(rng, visible, (4, 2), 8, jnp.float32)
  edges = oracle.intervals(visible, 2)

  @functools.partial(jax.jit, static_argnums=0)
  def run(attend, q, k, v):
    # As the model uses it: in a scan of rematerialized layers.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def layer(q, _):
      return 0.5 * q + attend(q, k, v, *edges), None

    return jax.lax.scan(layer, q, None, length=2)[0]

  def with_gradients(attend):
    out, pull = jax.vjp(functools.partial(run, attend), *arrays)
    return out, *pull(gradient)

  attend = functools.partial(
    sharded.interval_attention,
    implementation=implementation,
    blocks=(16, 16),
    interpret=True,
  )
  with jax.set_mesh(on_mesh(*shape)), nn.logical_axis_rules(sharding.RULES):
    got = with_gradients(attend)
  wanted = with_gradients(
    functools.partial(attention.interval_attention, implementation='dense')
  )
  assert len(got[0].sharding.device_set) == 8
  for a, b in zip(got, wanted):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_what_the_mesh_does_not_divide_is_refused():
  x, edge = jnp.zeros((4, 6, 4, 8)), jnp.zeros((4, 6), jnp.int32)
  with (
    jax.set_mesh(on_mesh(data=2, sequence=4)),
    nn.logical_axis_rules(sharding.RULES),
    pytest.raises(ValueError, match=r"axis 1 of q \(4, 6, 4, 8\) along \('sequence',\)"),
  ):
    sharded.interval_attention(x, x, x, edge, edge, implementation='chunked')


def test_the_model_on_a_mesh_is_the_model_on_a_device():
  """Scanned, rematerialized layers, with the project's own rules."""
  ids = jax.random.randint(jax.random.key(0), (4, 24), 0, 50)
  index = jnp.broadcast_to(jnp.arange(24), ids.shape)
  start, end = jnp.where(index < 10, 0, 10), jnp.where(index < 10, index + 1, 24)

  def model(implementation):
    config = make_config(
      model__attention=implementation, model__kv_heads=2, model__layers=1
    ).model
    return transformer.Transformer(config, 50)

  init = jax.jit(model('dense').init)
  params = nn.unbox(init(jax.random.key(1), ids, index, start, end))

  def gradients(implementation, mesh):
    def loss(params):
      return (model(implementation).apply(params, ids, index, start, end) ** 2).mean()

    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
      # Made on the mesh too, as a run makes them, of one short row.
      jax.eval_shape(model(implementation).init, jax.random.key(1), *[ids[:1, :2]] * 4)
      return jax.jit(jax.value_and_grad(loss))(jax.device_get(params))

  config = make_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
  got = gradients('chunked', sharding.make_mesh(config.mesh))
  wanted = gradients('dense', sharding.make_mesh(make_config().mesh, jax.devices()[:1]))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted)):
    np.testing.assert_allclose(a, b, atol=1e-5)
