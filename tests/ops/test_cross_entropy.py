import re

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from ttt_jax.ops import axes as axes_lib
from ttt_jax.ops import cross_entropy as ce

B, L, D, V = 2, 11, 6, 23
SIZE, AUDIO, MASK = 21, 13, 17  # ids in use, the first audio-class id, and one in between
FREE, RESTRICTED = ((0, SIZE), None), ((0, AUDIO, SIZE), MASK)


def draw(seed, share=0.4, shape=(B, L), width=D, rows=V, dtype=jnp.float32):
  """Hidden states, head, targets and weights, of which `share` are not 0."""
  rng = np.random.default_rng(seed)
  targets = rng.integers(0, SIZE, shape)
  targets[targets == MASK] = MASK + 1
  weights = rng.uniform(0.1, 2, shape) * (rng.random(shape) < share)
  return (
    jnp.array(rng.normal(size=(*shape, width)), dtype),
    jnp.array(rng.normal(size=(rows, width)), jnp.float32),
    jnp.array(targets, jnp.int32),
    jnp.array(weights, jnp.float32),
  )


def naive(hidden, head, targets, weights, bounds, excluded, z_loss):
  """The definition, with all logits: objective, cross-entropies, and whether they are right."""
  ids, target = np.arange(len(head)), np.asarray(targets)[..., None]
  allowed = np.zeros((*targets.shape, len(head)), bool)
  for first, last in zip(bounds, bounds[1:]):
    inside = (ids >= first) & (ids < last) & (ids != (-1 if excluded is None else excluded))
    allowed |= inside & (target >= first) & (target < last)
  logits = jnp.where(allowed, hidden @ head.T, -jnp.inf)
  log_z = jnp.log(jnp.sum(jnp.exp(logits), -1))
  loss = log_z - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  counted = weights > 0
  objective = jnp.sum(jnp.where(counted, weights * (loss + z_loss * log_z**2), 0))
  right = logits.argmax(-1) == targets
  return objective, (jnp.where(counted, loss, 0), right & counted)


def values_and_gradients(function, arrays, *more, scale=1.0):
  def scaled(hidden, head):
    objective, aux = function(hidden, head, *arrays[2:], *more)
    return scale * objective, aux

  return jax.jit(jax.value_and_grad(scaled, (0, 1), has_aux=True))(*arrays[:2])


value = jax.jit(ce.cross_entropy, static_argnums=4)


def assert_close(ours, wanted, tolerance=2e-5):
  (value, scores), gradients = ours
  (wanted_value, (loss, correct)), wanted_gradients = wanted
  np.testing.assert_allclose(value, wanted_value, rtol=tolerance)
  np.testing.assert_allclose(scores.loss, loss, rtol=tolerance, atol=tolerance)
  np.testing.assert_array_equal(scores.correct, correct)
  for a, b in zip(gradients, wanted_gradients):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@hypothesis.settings(max_examples=10)
@hypothesis.given(
  seed=st.integers(0, 2**16),
  share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
  chunk=st.sampled_from([1, 2, 5, B * L - 1, B * L, 100]),
  ids=st.sampled_from([FREE, RESTRICTED, ((0, AUDIO, SIZE), None), ((0, SIZE), MASK)]),
  z_loss=st.sampled_from([0.0, 0.3]),
)
def test_it_is_the_definition(seed, share, chunk, ids, z_loss):
  arrays = draw(seed, share)
  ours = values_and_gradients(
    ce.cross_entropy, arrays, ce.Options(*ids, z_loss, chunk), scale=1.7
  )
  assert_close(ours, values_and_gradients(naive, arrays, *ids, z_loss, scale=1.7))
  without = value(*arrays, ce.Options(*ids, z_loss, chunk))
  np.testing.assert_allclose(1.7 * without[0], ours[0][0], rtol=1e-6)


@pytest.mark.parametrize('ids', [FREE, RESTRICTED])
def test_targets_among_others_give_exactly_what_they_give_alone(ids):
  hidden, head, targets, weights = draw(0, 0.3)
  counted = np.asarray(weights) > 0
  hidden = jnp.where(counted[..., None], hidden, jnp.nan)  # nothing else may be read
  options = ce.Options(*ids, 0.1, 4)
  among = values_and_gradients(ce.cross_entropy, (hidden, head, targets, weights), options)
  alone = [a[counted][None] for a in (hidden, targets, weights)]
  arrays = alone[0], head, *alone[1:]
  (_, scores), (d_hidden, d_head) = values_and_gradients(ce.cross_entropy, arrays, options)
  np.testing.assert_array_equal(among[0][1].loss[counted], scores.loss[0])
  np.testing.assert_array_equal(among[1][0][counted], d_hidden[0])
  np.testing.assert_array_equal(among[1][1], d_head)
  assert not np.asarray(among[1][0])[~counted].any()


@pytest.mark.parametrize('share', [0.0, 0.2, 1.0])
@pytest.mark.parametrize('ids', [FREE, RESTRICTED])
def test_only_chunks_of_targets_and_ids_of_their_class_are_done(monkeypatch, share, ids):
  done, shapes, softmax = [], [], ce._softmax

  def counting(logits, *arguments):
    shapes.append(logits.shape)
    jax.debug.callback(lambda: done.append(1))
    return softmax(logits, *arguments)

  monkeypatch.setattr(ce, '_softmax', counting)
  arrays, chunk = draw(1, share), 3
  values_and_gradients(ce.cross_entropy, arrays, ce.Options(*ids, chunk=chunk))
  jax.effects_barrier()
  targets = np.asarray(arrays[2])[np.asarray(arrays[3]) > 0]
  counts = [np.sum((targets >= a) & (targets < b)) for a, b in zip(ids[0], ids[0][1:])]
  assert len(done) == sum(-(-count // chunk) for count in counts)
  assert set(shapes) == {(chunk, b - a) for a, b in zip(ids[0], ids[0][1:])}


def test_each_class_is_predicted_by_its_own_rows_of_the_head():
  arrays = draw(2, 1.0)
  text = arrays[2] < AUDIO
  options = ce.Options(*RESTRICTED)
  only_text = (*arrays[:3], arrays[3] * text)
  _, (_, d_head) = values_and_gradients(ce.cross_entropy, only_text, options)
  assert np.abs(d_head[:AUDIO]).min() > 0 and not np.asarray(d_head[AUDIO:]).any()
  _, (_, d_head) = values_and_gradients(ce.cross_entropy, arrays, options)
  assert not np.asarray(d_head[MASK]).any() and not np.asarray(d_head[SIZE:]).any()


def test_the_error_of_the_heads_gradient_does_not_grow_with_the_chunks():
  shape = (1, 2048)
  hidden, head, targets, weights = draw(3, 1.0, shape, 16, dtype=jnp.bfloat16)
  exact = [jnp.float32(a) for a in (hidden, head.astype(jnp.bfloat16))]
  exact = values_and_gradients(naive, (*exact, targets, weights), *FREE, 0.0)[1][1]
  errors = []
  for chunk in (2048, 16):
    options = ce.Options(*FREE, chunk=chunk)
    arrays = hidden, head, targets, weights
    _, (d_hidden, d_head) = values_and_gradients(ce.cross_entropy, arrays, options)
    assert d_hidden.dtype == jnp.bfloat16 and d_head.dtype == jnp.float32
    errors.append(float(jnp.linalg.norm(d_head - exact) / jnp.linalg.norm(exact)))
  assert errors[1] < 1.05 * errors[0] < 2e-3


@pytest.mark.parametrize('target', [SIZE, V - 1, -1])
def test_a_target_that_no_id_stands_for_is_not_dropped_in_silence(target):
  hidden, head, targets, weights = draw(4, 0.0)
  arrays = hidden, head, targets.at[0, 3].set(target), weights.at[0, 3].set(1)
  objective, scores = value(*arrays, ce.Options(*FREE))
  assert np.isnan(objective) and np.isnan(scores.loss[0, 3])
  excluded = hidden, head, targets.at[0, 3].set(MASK), weights.at[0, 3].set(1)
  assert value(*excluded, ce.Options(*RESTRICTED))[0] == np.inf


ROWS, WIDTH, HEAD = 8, 8, 24
AXES = axes_lib.Axes(('data', 'fsdp'), (), ('tensor',), ('fsdp',))


def sharded(mesh, axes=AXES):
  """The axes of a mesh that cut something, as the training step names them."""
  shape = dict(zip(('data', 'fsdp', 'tensor'), mesh))
  kept = axes_lib.Axes(*(tuple(a for a in part if shape[a] > 1) for part in axes))
  types = (jax.sharding.AxisType.Auto,) * 3
  return jax.make_mesh(mesh, tuple(shape), axis_types=types), kept


def uneven(seed, dtype=jnp.float32):
  """Rows of which the first has no target, and the last has nothing else."""
  hidden, head, targets, weights = draw(seed, 0.4, (ROWS, L), WIDTH, HEAD, dtype)
  return hidden, head, targets, weights.at[0].set(0).at[-1].set(0.5)


@pytest.mark.parametrize(
  'mesh,ids',
  [
    ((2, 4, 1), FREE),  # data, fsdp, tensor
    ((1, 1, 8), RESTRICTED),
    ((2, 2, 2), RESTRICTED),
    ((1, 2, 4), FREE),
  ],
)
def test_eight_devices_give_what_one_gives(mesh, ids):
  arrays, options = uneven(5), ce.Options(*ids, 0.1, 3)
  alone = values_and_gradients(ce.cross_entropy, arrays, options)
  mesh, axes = sharded(mesh)
  with jax.set_mesh(mesh):
    spread = values_and_gradients(ce.cross_entropy, arrays, options._replace(axes=axes))
  assert_close(jax.device_get(spread), alone)


def test_rows_may_be_cut_by_their_length():
  hidden, head, targets, weights = uneven(6)
  arrays = tuple(jnp.swapaxes(a, 0, 1) for a in (hidden, targets, weights))
  arrays, options = (arrays[0], head, *arrays[1:]), ce.Options(*FREE, chunk=3)
  alone = values_and_gradients(ce.cross_entropy, arrays, options)
  mesh, axes = sharded((2, 2, 2), axes_lib.Axes((), ('data', 'fsdp'), ('tensor',), ('fsdp',)))
  with jax.set_mesh(mesh):
    spread = values_and_gradients(ce.cross_entropy, arrays, options._replace(axes=axes))
  assert_close(jax.device_get(spread), alone)


_COLLECTIVE = re.compile(
  r'= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\('
)


def collectives(text):
  """Collectives of compiled HLO as (kind, shapes): those within loops, and the others."""
  bodies, name = {}, None
  for line in text.splitlines():
    if header := re.match(r'(?:ENTRY )?%?([\w.-]+) \(.*\{$', line):
      name = header[1]
      bodies[name] = []
    elif name:
      bodies[name].append(line)
  waiting = [n for lines in bodies.values() for n in re.findall(r'body=%([\w.-]+)', str(lines))]
  looped = set()
  while waiting:
    name = waiting.pop()
    if name not in looped:
      looped.add(name)
      called = r'(?:body|condition|to_apply|calls)=%([\w.-]+)'
      waiting += re.findall(called, '\n'.join(bodies[name]))
  within, outside = [], []
  for name, lines in bodies.items():
    for found in map(_COLLECTIVE.search, lines):
      if found:
        shapes = [
          tuple(int(n) for n in shape.split(',') if n)
          for shape in re.findall(r'\w\d+\[([\d,]*)\]', found[1])
        ]
        (within if name in looped else outside).append((found[2], shapes))
  return within, outside


def compiled(mesh, chunk):
  """Collectives of value and gradient on arrays that lie as in training."""
  mesh, axes = sharded(mesh)
  options = ce.Options(*FREE, chunk=chunk, axes=axes)
  spec = jax.sharding.PartitionSpec
  with jax.set_mesh(mesh):
    tokens, rows = (
      jax.sharding.NamedSharding(mesh, spec(*parts))
      for parts in ((axes.batch,), (axes.vocabulary + axes.stored,))
    )
    arrays = jax.device_put(uneven(7), (tokens, rows, tokens, tokens))
    step = jax.value_and_grad(ce.cross_entropy, (0, 1), has_aux=True)
    jitted = jax.jit(step, static_argnums=4)
    return collectives(jitted.lower(*arrays, options).compile().as_text())


def test_the_head_is_gathered_once_and_its_gradient_reduced_once():
  within, outside = compiled((2, 4, 1), 3)
  assert not within
  whole, part = (HEAD, WIDTH), (HEAD // 4, WIDTH)
  assert [s for kind, s in outside if kind == 'all-gather'] == [[whole]]
  assert [s for kind, s in outside if kind == 'reduce-scatter'] == [[part]]
  reduced = [s for kind, shapes in outside if kind == 'all-reduce' for s in shapes]
  assert sorted(s for s in reduced if s) == [part]  # over data; the others are numbers


def test_a_head_cut_along_the_vocabulary_gathers_no_logits():
  chunk = 3
  within, outside = compiled((1, 2, 4), chunk)
  assert sorted(within) == [('all-reduce', [(2, chunk)]), ('all-reduce', [(chunk,)])]
  assert [s for kind, s in outside if kind == 'all-gather'] == [[(HEAD // 4, WIDTH)]]


def test_a_head_cut_along_what_the_positions_are_not_is_refused():
  with pytest.raises(ValueError, match="stored along .'fsdp',., positions along .'data'"):
    axes = axes_lib.Axes(('data',), (), (), ('fsdp',))
    ce.cross_entropy(*draw(8), ce.Options(*FREE, axes=axes))
