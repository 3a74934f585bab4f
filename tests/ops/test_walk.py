import attention_oracle as oracle
import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax.ops.attention import walk

jitted_runs = jax.jit(walk.runs)
jitted_matrix = jax.jit(walk.block_matrix, static_argnums=(2, 3, 4))
jitted_place = jax.jit(walk.place)

sizes = st.sampled_from([(4, 8), (8, 4), (16, 16)])


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), sizes=sizes, streams=st.integers(1, 2))
def test_blocks_are_touched_and_full_as_the_rule_says(seed, sizes, streams):
  block_q, block_k = sizes
  visible = oracle.row(np.random.default_rng(seed), 64, streams)
  edges = (edge.T[None] for edge in oracle.intervals(visible, streams))
  touched, full = (x[0] for x in jitted_matrix(*edges, block_q, block_k, 64))
  pairs = visible.reshape(64 // block_q, block_q, 64 // block_k, block_k)
  np.testing.assert_array_equal(full, pairs.all((1, 3)))
  assert (np.asarray(touched) >= pairs.any((1, 3))).all()
  if streams == 1:
    # Of a packed row, the walks of both directions hold nothing but what is touched.
    np.testing.assert_array_equal(touched, pairs.any((1, 3)))
    for way in (np.asarray(touched), np.asarray(touched).T):
      np.testing.assert_array_equal(walk.steps(jitted_runs(way, way)), way.sum(1))


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), density=st.sampled_from([0, 0.1, 0.5, 0.9, 1]))
def test_walks_hold_all_that_is_touched_and_split_at_the_widest_gap(seed, density):
  rng = np.random.default_rng(seed)
  touched = rng.random((3, 12)) < density
  full = touched & (rng.random((3, 12)) < 0.6)
  for row, inner, runs in zip(touched, full, np.asarray(jitted_runs(touched, full))):
    assert (np.diff(runs, axis=1) >= 0).all() and runs[0, 3] <= runs[1, 0]
    held = [block for run in runs for block in range(run[0], run[3])]
    assert set(np.flatnonzero(row)) <= set(held)
    unmasked = [block for run in runs for block in range(run[1], run[2])]
    assert inner[unmasked].all()
    inside = np.diff(np.flatnonzero(row)) - 1  # sizes of the gaps
    assert len(held) == row.sum() + inside.sum() - (inside.max() if inside.size else 0)
    # Each run leaves out as few full blocks as one stretch can.
    for run in runs:
      stretches = ''.join('x' if f else ' ' for f in inner[run[0] : run[3]]).split()
      assert run[2] - run[1] == max(map(len, stretches), default=0)
    flat = runs.reshape(-1)
    for step, block in enumerate(held):
      assert jitted_place(flat, step) == (block, block in unmasked)
    if held:
      assert jitted_place(flat, len(held) + 3)[0] == held[-1]
    else:
      assert jitted_place(flat, 0) == (0, False)
