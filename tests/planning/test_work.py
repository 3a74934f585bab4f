"""What a program does, against closed forms and programs whose work is known."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax.sharding import AxisType, PartitionSpec

from ttt_jax.planning import hlo, work

MESH = {'data': 2, 'fsdp': 4}


def program(function, *shapes):
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return hlo.Program(jax.jit(function).lower(*arrays).compile().as_text())


def test_loops_within_loops_are_counted_by_their_trips():
  def inner(x, _):
    return x @ x, None

  def outer(x, _):
    return jax.lax.scan(inner, x @ x, None, length=3)[0], None

  made = program(lambda x: jax.lax.scan(outer, x, None, length=5)[0], (8, 8))
  assert work.flops(made, 1) == 5 * 4 * 2 * 8**3


def test_a_loop_with_an_open_end_runs_as_often_as_is_said():
  def run(x, n):
    return jax.lax.fori_loop(0, n.astype(jnp.int32), lambda _, x: x @ x, x)

  made = program(run, (8, 8), ())
  assert work.flops(made, 7) == 7 * 2 * 8**3


def test_products_in_batches_count_each_of_them():
  made = program(lambda x, y: jnp.einsum('bij,bjk->bik', x, y), (3, 4, 5), (3, 5, 6))
  assert work.flops(made, 1) == 2 * 3 * 4 * 5 * 6


@hypothesis.settings(max_examples=40)
@hypothesis.given(
  size=st.integers(1, 7),
  taps=st.integers(1, 4),
  stride=st.integers(1, 3),
  pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
  spread=st.integers(1, 3),
  apart=st.integers(1, 2),
)
def test_padding_of_a_convolution_is_no_work(size, taps, stride, pad, spread, apart):
  """By brute force: places where a tap meets a number and not padding."""
  whole = (size - 1) * spread + 1 + sum(pad)
  out = (whole - (taps - 1) * apart - 1) // stride + 1
  hypothesis.assume(out > 0)
  met = sum(
    0 <= at - pad[0] <= (size - 1) * spread and (at - pad[0]) % spread == 0
    for step in range(out)
    for at in (step * stride + tap * apart for tap in range(taps))
  )
  text = f"""
ENTRY %main (x: f32[2,{size},3], w: f32[{taps},3,5]) -> f32[2,{out},5] {{
  %x = f32[2,{size},3]{{2,1,0}} parameter(0)
  %w = f32[{taps},3,5]{{2,1,0}} parameter(1)
  ROOT %c = f32[2,{out},5]{{2,1,0}} convolution(%x, %w), window={{size={taps} stride={stride} \
pad={pad[0]}_{pad[1]} lhs_dilate={spread} rhs_dilate={apart}}}, dim_labels=b0f_0io->b0f
}}"""
  assert work.flops(hlo.Program(text), 1) == 2 * 2 * 3 * 5 * met


def sent(function, shape, spec, out_spec, axes=MESH):
  """Traffic of a function of one array on the devices of a mesh, called twice in a scan."""
  mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * 2)
  local = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=out_spec, check_vma=False)

  def twice(x):
    return jax.lax.scan(lambda total, _: (total + local(x * total).sum(), None), 1.0, None, 2)

  with jax.set_mesh(mesh):
    made = program(twice, shape)
  found = work.traffic(made, axes, 1)
  return {(t.kind, t.axes): t.sent for t in found if t.sent > 100}


X = (16, 24)  # 1,536 bytes in float32
P = PartitionSpec


@pytest.mark.parametrize(
  'function,spec,out_spec,wanted',
  [
    (
      lambda x: jax.lax.all_gather(x, 'fsdp', tiled=True),
      *(P('fsdp'), P()),
      {('all-gather', ('fsdp',)): 2 * 1536 * 3 / 4},
    ),
    (
      lambda x: jax.lax.psum(x, 'data'),
      *(P('data'), P()),
      {('all-reduce', ('data',)): 2 * 2 * 768 / 2},
    ),
    (
      lambda x: jax.lax.psum_scatter(x, ('data', 'fsdp'), tiled=True),
      *(P(), P(('data', 'fsdp'))),
      {('reduce-scatter', ('data', 'fsdp')): 2 * 1536 * 7 / 8},
    ),
    (
      lambda x: jax.lax.all_to_all(x, 'fsdp', 1, 0, tiled=True),
      *(P('fsdp'), P(None, 'fsdp')),
      {('all-to-all', ('fsdp',)): 2 * 384 * 3 / 4},
    ),
    (
      lambda x: jax.lax.ppermute(x, 'data', [(0, 1), (1, 0)]),
      *(P('data'), P('data')),
      {('collective-permute', ('data',)): 2 * 768},
    ),
  ],
  ids=['gather', 'reduce', 'scatter', 'all-to-all', 'permute'],
)
def test_what_is_sent_is_that_of_the_best_algorithm_along_its_axis(
  function, spec, out_spec, wanted
):
  assert sent(function, X, spec, out_spec) == wanted


@pytest.mark.parametrize(
  'written,axes',
  [
    ('replica_groups={{0,1,2,3},{4,5,6,7}}', ('fsdp',)),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', ('data',)),
    ('replica_groups=[1,8]<=[8]', ('data', 'fsdp')),
    ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", ('data',)),
  ],
)
def test_groups_are_read_in_every_notation(written, axes):
  text = f"""
ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %r = f32[8]{{0}} all-reduce(%x), channel_id=1, {written}, to_apply=%add
}}

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %s = f32[] add(%a, %b)
}}"""
  (found,) = work.traffic(hlo.Program(text), MESH, 1)
  count = np.prod([MESH[axis] for axis in axes])
  assert found == ('all-reduce', axes, 'f32', 2 * 32 * (count - 1) / count)


@pytest.mark.parametrize(
  'written,sent_bytes',
  [
    ('f32[8]{0} all-reduce-start(%x)', 2 * 32 * 3 / 4),
    ('(f32[8]{0}, f32[4]{0}) all-reduce-start(%x, %y)', 2 * 48 * 3 / 4),
    ('(f32[8]{0}, f32[32]{0}) all-gather-start(%x)', 128 * 3 / 4),
    ('((f32[8], f32[4]), (f32[32], f32[16])) all-gather-start(%x, %y)', 192 * 3 / 4),
  ],
)
def test_what_is_started_is_sent_whole(written, sent_bytes):
  text = f"""
ENTRY %main (x: f32[8], y: f32[4]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %y = f32[4]{{0}} parameter(1)
  ROOT %r = {written}, channel_id=1, replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}
}}"""
  (found,) = work.traffic(hlo.Program(text), MESH, 1)
  assert found.sent == sent_bytes


def test_kernels_go_by_their_names_however_often_they_are_copied():
  lines = [
    f'  %{name} = f32[8]{{0}} custom-call(), custom_call_target="tpu_custom_call"'
    for name in ('interval_d_q', 'interval_d_q.3', 'interval_d_q.3.remat', 'other.clone.1')
  ]
  text = '\n'.join(['ENTRY %main () -> f32[8] {', *lines, '}'])
  assert work.kernels(hlo.Program(text), 1) == {'interval_d_q': 3, 'other': 1}


def test_what_is_no_program_is_refused():
  with pytest.raises(ValueError, match='ENTRY'):
    hlo.Program('nothing')
