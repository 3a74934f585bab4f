"""Float32 is multiplied as float32, on devices too that would take something shorter."""

import functools

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from data_pipelines.stream import loader, rows
from ttt_jax.model import transformer
from ttt_jax.training import step


def products(jaxpr):
  """All products, those in loops and calls too."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      yield equation
    for inner in jax.core.jaxprs_in_params(equation.params):
      yield from products(inner)


@pytest.mark.parametrize('attention', ['dense', 'chunked'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_step_multiplies_float32_as_float32(source, attention, dtype):
  config = make_config(model__attention=attention, model__dtype=dtype)
  vocabulary = source.assets.vocabulary
  model = transformer.Transformer(config.model, vocabulary.size)
  made = rows.Rows([source], config.data, config.mask, config.objective, 0)
  (batch,) = loader.batches(made, 2, 1)
  view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
  params = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *view)['params'])
  loss = functools.partial(step.loss, model, vocabulary, config.objective)
  traced = jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, batch)
  highest, found = (jax.lax.Precision.HIGHEST,) * 2, list(products(traced.jaxpr))
  kinds = {equation.invars[0].aval.dtype for equation in found}
  assert np.dtype(dtype) in kinds and len(found) > 20
  for equation in found:
    exact = equation.invars[0].aval.dtype == np.float32
    assert equation.params['precision'] == (highest if exact else None), equation
