"""The kernels, compiled for TPUs by libtpu and lowered for CUDA, on a machine with neither."""

import functools
import os

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from machines import by_libtpu

from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.ops import attention
from ttt_jax.ops.attention import gpu, sharded

ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',  # there is no such machine to ask
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # several tests at a time
}


@functools.cache
def devices(name):
  os.environ.update(ENVIRONMENT)
  return topologies.get_topology_desc(platform='tpu', topology_name=name).devices


def arguments(length, keys, heads, width, intervals, dtype, batch=2, where=None):
  edge = (batch, length) if intervals == 1 else (batch, length, intervals)
  shapes = [(batch, n, h, width) for n, h in zip((length, keys, keys), heads)]
  shapes = [(shape, dtype) for shape in shapes] + [(edge, jnp.int32)] * 2
  return [jax.ShapeDtypeStruct(*shape, sharding=where) for shape in shapes]


def with_gradients(attend, q, k, v, start, end, **settings):
  out, pull = jax.vjp(lambda *x: attend(*x, start, end, **settings), q, k, v)
  return out, *pull(out)


@by_libtpu
@pytest.mark.parametrize(
  'name,length,heads,width,intervals,dtype,soft_cap',
  [
    ('v5e:2x2', 512, (4, 2, 2), 128, 1, jnp.bfloat16, None),
    ('v5e:2x2', 700, (2, 2, 2), 64, 2, jnp.float32, 20.0),
    ('v6e:2x2', 512, (4, 2, 2), 128, 2, jnp.bfloat16, None),
  ],
)
def test_forward_and_gradients_compile_for_a_tpu(
  name, length, heads, width, intervals, dtype, soft_cap
):
  device = devices(name)[0]
  where = jax.sharding.SingleDeviceSharding(device)
  run = functools.partial(
    with_gradients, attention.interval_attention, implementation='auto', soft_cap=soft_cap
  )
  with jax.default_device(device):
    inputs = arguments(length, length, heads, width, intervals, dtype, where=where)
    compiled = jax.jit(run).lower(*inputs).compile()
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3
  scores = 2 * heads[0] * length**2 * 4
  assert compiled.memory_analysis().temp_size_in_bytes < scores / 2


@by_libtpu
def test_decoding_compiles_for_a_tpu_and_reads_the_cache_as_it_lies():
  device = devices('v5e:2x2')[0]
  shape = functools.partial(
    jax.ShapeDtypeStruct, sharding=jax.sharding.SingleDeviceSharding(device)
  )
  q, edge = shape((3, 1, 28, 128), jnp.bfloat16), shape((3, 1), jnp.int32)
  cache = shape((3, 4, 1024, 128), jnp.bfloat16)

  def run(q, k, v, start, end):
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    return attention.interval_attention(q, k, v, start, end, implementation='tpu')

  with jax.default_device(device):
    compiled = jax.jit(run).lower(q, cache, cache, edge, edge).compile()
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 1
  assert compiled.memory_analysis().temp_size_in_bytes < 2 * cache.size / 4


@by_libtpu
def test_a_mesh_of_tpus_compiles_within_scan_and_remat():
  sizes = config_lib.Mesh(slices=1, data=1, outer=1, fsdp=1, sequence=2, tensor=2)
  mesh = sharding.make_mesh(sizes, devices('v5p:2x2x1'))
  policy = jax.checkpoint_policies.save_only_these_names('attention_out', 'attention_lse')

  def run(q, k, v, start, end):
    @functools.partial(jax.checkpoint, prevent_cse=False, policy=policy)
    def layer(x, _):
      return x + sharded.interval_attention(x, k, v, start, end, implementation='auto'), None

    return jax.grad(lambda q: jax.lax.scan(layer, q, None, length=2)[0].sum())(q)

  with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.RULES):
    where = NamedSharding(mesh, PartitionSpec())
    inputs = arguments(512, 512, (4, 2, 2), 128, 1, jnp.bfloat16, where=where)
    compiled = jax.jit(run).lower(*inputs).compile()
  # Forward once, for the saved names spare the second; d_q, and d_kv for nobody.
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 2


@pytest.mark.parametrize('width,dtype,soft_cap', [(64, 'bfloat16', None), (80, 'float32', 9.0)])
def test_the_kernels_are_lowered_for_cuda(width, dtype, soft_cap):
  *arrays, start, end = arguments(300, 300, (4, 2, 2), width, 2, dtype)
  edges = [jax.ShapeDtypeStruct((2, 2, 300), jnp.int32)] * 2

  def run(q, k, v, start, end):
    attend = functools.partial(gpu.attention, blocks=None, interpret=False)
    return with_gradients(lambda *x: attend(*x, soft_cap=soft_cap), q, k, v, start, end)

  lowered = jax.jit(run).trace(*arrays, *edges).lower(lowering_platforms=('cuda',))
  assert lowered.as_text().count('@__gpu$xla.gpu.triton') == 3
