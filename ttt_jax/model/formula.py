"""The operations that a model needs, by a formula, whatever a program makes of them."""

from typing import NamedTuple

import numpy as np

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib

TEXT = """\
operations of a position = 6 * weights in the layers' products * share of positions filled
                         + 6 * width * ids in use * share of positions that are targets
                         + 12 * layers * heads * head_width * keys that a position sees"""


class Rows(NamedTuple):
  """What rows are like, on average: all else about them costs the same.

  Attributes:
    visible: keys that a position sees.
    targets: share of positions that are targets.
    fill: share of positions that are no padding.
  """

  visible: float
  targets: float
  fill: float


def typical(document: float, targets: float) -> Rows:
  """Rows full of documents of so many tokens, each of which sees half of its own."""
  return Rows(document / 2, targets, 1.0)


def measured(batch: batch_lib.Batch) -> Rows:
  """Of rows as they are."""
  visible = batch.visible
  return Rows(
    float(visible.mean()), float((batch.weights > 0).mean()), float((visible > 0).mean())
  )


def weights(model: config_lib.Model) -> int:
  """Weights of the layers' products; not the embedding, nor norms, nor biases."""
  attention = 2 * model.width * (model.heads + model.kv_heads) * model.head_width
  return model.layers * (attention + 3 * model.width * model.mlp_width)


def training(model: config_lib.Model, vocabulary_size: int, rows: Rows) -> float:
  """Operations of a position in training, on average: `TEXT`.

  Two for each multiplication and addition; a product's backward pass is two products. What is
  computed anew, to save memory, does not count, nor what is done to padding.
  """
  layers = weights(model) * rows.fill
  head = model.width * vocabulary_size * rows.targets
  return 6.0 * (layers + head) + attention(model, rows, 12)


def attention(model: config_lib.Model, rows: Rows, operations: int) -> float:
  """Of a position, where each pair of a query and a key costs `operations` a head's width.

  The products of queries and keys and of probabilities and values are 2 each, and their
  backward passes twice that.
  """
  return float(operations * model.layers * model.heads * model.head_width * rows.visible)


def mean(rows: list[Rows]) -> Rows:
  """Of several batches."""
  return Rows(*np.mean(rows, 0).tolist())


def gathered(
  model: config_lib.Model, parameters: int, ways: int, operand: int, summed: int
) -> float:
  """Bytes that FSDP must send at least, by device and step.

  The forward and the backward pass of a layer each gather its weights, and its gradient is
  reduced; what is no layer's, the embedding and the output layer, is gathered once. Of each
  array a device sends all but its own part.

  Args:
    model: its shape.
    parameters: all of them.
    ways: into how many parts the state is cut.
    operand: bytes of a weight where it is used.
    summed: bytes of a gradient where it is added up.
  """
  layers = weights(model)
  once = parameters - layers
  return (ways - 1) / ways * (layers * (2 * operand + summed) + once * (operand + summed))
