import jax
import numpy as np
import pytest
from conftest import make_config

from data_pipelines.stream import loader, rows
from ttt_jax import mask
from ttt_jax.model import formula, transformer


@pytest.fixture(scope='module')
def batch(source):
  config = make_config()
  made = rows.Rows([source], config.data, config.mask, config.objective, 0)
  (batch,) = loader.batches(made, config.data.batch_size, 1)
  # Half of a row is made padding, so that it shows whether that costs.
  for name in ('kv_start', 'kv_end', 'weights'):
    getattr(batch, name)[0, 64:] = 0
  return batch


def test_the_formula_counts_the_products_of_the_network_on_what_is_visible(batch):
  model, size = make_config().model, 450
  ids = np.zeros((1, 2), np.int32)
  network = transformer.Transformer(model, size)
  params = jax.eval_shape(network.init, jax.random.key(0), ids, ids, ids, ids + 1)['params']
  matrices = [
    leaf.size
    for path, leaf in jax.tree_util.tree_leaves_with_path(params['layers'])
    if not any(name in str(path) for name in ('bias', 'scale'))
  ]
  filled = (batch.kv_end > batch.kv_start).sum()
  keys = np.arange(batch.inputs.shape[1])
  pairs = 0  # of a query and a key, all over the batch
  for start, end in zip(batch.kv_start, batch.kv_end):
    pairs += ((keys >= start[:, None]) & (keys < end[:, None])).sum()
  wanted = 6 * sum(matrices) * filled
  wanted += 6 * 32 * size * (batch.weights > 0).sum()  # an output layer is width 32 by ids
  # Scores and sums of values, 2 each, and twice that backward: 2 layers, 4 heads of 8.
  wanted += (2 + 2) * 3 * 2 * 4 * 8 * pairs
  found = formula.training(model, size, formula.measured(batch)) * batch.inputs.size
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_causal_document_sees_half_of_itself():
  length = 1000
  seen = mask.visible(np.zeros(length, int), np.arange(length)).sum(1).mean()
  assert formula.typical(length, 0.5).visible == pytest.approx(seen, rel=2e-3)
