"""One table of parameters for both directions: our tree, and Hugging Face's flat names.

Qwen2, Qwen3 and Llama share it; which rows a model has follows from its settings. Weights of
linear layers lie transposed over there ([out, in]), and each layer has tensors of its own where
ours are stacked.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ttt_jax import config as config_lib
from ttt_jax import errors


class ConversionError(errors.UserError):
  """A checkpoint does not hold what its settings promise."""


class Row(NamedTuple):
  """One parameter.

  Attributes:
    ours: path in our tree.
    theirs: name over there; holds `{layer}` where ours is stacked.
    shape: ours, of one layer.
    columns: number of leading axes of `shape` that are their last axis: how a linear
      layer's input is flattened. 0: the tensor is the same on both sides.
  """

  ours: tuple[str, ...]
  theirs: str
  shape: tuple[int, ...]
  columns: int = 0

  @property
  def stacked(self) -> bool:
    """Whether ours has a leading axis of layers."""
    return '{layer}' in self.theirs

  @property
  def wide(self) -> bool:
    """Whether it has a row a word of the vocabulary."""
    return self.ours in (('embedding',), ('head',))

  @property
  def their_shape(self) -> tuple[int, ...]:
    """The shape over there."""
    if not self.columns:
      return (int(np.prod(self.shape)),) if self.stacked else self.shape
    inputs, outputs = self.shape[: self.columns], self.shape[self.columns :]
    return (int(np.prod(outputs)), int(np.prod(inputs)))

  def to_ours(self, tensor: np.ndarray) -> np.ndarray:
    """Their tensor, as one layer of ours."""
    return (tensor.T if self.columns else tensor).reshape(self.shape)

  def to_theirs(self, tensor: np.ndarray) -> np.ndarray:
    """One layer of ours, as their tensor."""
    if not self.columns:
      return tensor.reshape(self.their_shape)
    return np.ascontiguousarray(tensor.reshape(self.their_shape[::-1]).T)


def rows(config: config_lib.Model, vocabulary_size: int) -> list[Row]:
  """The table of a model whose embedding has `vocabulary_size` rows over there."""
  c, layer = config, 'model.layers.{layer}.'
  wide = (vocabulary_size, c.width)
  table = [Row(('embedding',), 'model.embed_tokens.weight', wide)]
  for name, heads in (('q', c.heads), ('k', c.kv_heads), ('v', c.kv_heads)):
    path, theirs = ('layers', 'attention'), f'{layer}self_attn.{name}_proj.'
    shape = (c.width, heads, c.head_width)
    table.append(Row((*path, name), theirs + 'weight', shape, columns=1))
    if c.qkv_bias:
      table.append(Row((*path, f'{name}_bias'), theirs + 'bias', shape[1:]))
    if c.qk_norm and name != 'v':
      theirs = f'{layer}self_attn.{name}_norm.weight'
      table.append(Row((*path, f'{name}_norm', 'scale'), theirs, (c.head_width,)))
  shape = (c.heads, c.head_width, c.width)
  table.append(
    Row(('layers', 'attention', 'out'), f'{layer}self_attn.o_proj.weight', shape, columns=2)
  )
  for name in ('gate', 'up', 'down'):
    shape = (c.width, c.mlp_width) if name != 'down' else (c.mlp_width, c.width)
    table.append(
      Row(('layers', 'mlp', name), f'{layer}mlp.{name}_proj.weight', shape, columns=1)
    )
  for ours, theirs in (
    ('attention_norm', 'input_layernorm'),
    ('mlp_norm', 'post_attention_layernorm'),
  ):
    table.append(Row(('layers', ours, 'scale'), f'{layer}{theirs}.weight', (c.width,)))
  table.append(Row(('norm', 'scale'), 'model.norm.weight', (c.width,)))
  if not c.tied:
    table.append(Row(('head',), 'lm_head.weight', wide))
  return table


def check(
  shapes: Mapping[str, tuple[int, ...]], config: config_lib.Model, vocabulary_size: int
) -> None:
  """Raises ConversionError, which lists all tensors that are missing, unexpected or misshapen.

  Args:
    shapes: of their tensors.
    config: the model.
    vocabulary_size: rows of their embedding.
  """
  if config.layers > len(shapes):  # before as many names are made
    raise ConversionError(
      f'config.json asks for {config.layers} layers, but there are {len(shapes)} tensors'
    )
  wanted = {
    name: row.their_shape
    for row in rows(config, vocabulary_size)
    for name in _names(row, config.layers)
  }
  refuse = [f'missing: {name}' for name in wanted if name not in shapes]
  refuse += [f'unexpected: {name}' for name in sorted(set(shapes) - set(wanted))]
  refuse += [
    f'{name}: shape {tuple(shapes[name])}, wanted {shape}'
    for name, shape in wanted.items()
    if name in shapes and tuple(shapes[name]) != shape
  ]
  if refuse:
    raise ConversionError('the tensors do not fit the model:\n  ' + '\n  '.join(refuse))


def to_ours(
  tensors: Mapping[str, np.ndarray],
  config: config_lib.Model,
  their_rows: int,
  *,
  size: int | None = None,
  kept: int | None = None,
  dtype: Any = np.float32,
) -> dict[str, Any]:
  """Our tree of parameters.

  Args:
    tensors: theirs, by name, fit for `check`; each is taken once and let go, so that a lazy
      mapping costs no more memory than the result and one tensor.
    config: the model.
    their_rows: of their embedding.
    size: ids in use; by default as many as their rows. Ours has `config.padded(size)` rows.
    kept: their first rows, which are taken over; by default all. The others are zeros.
    dtype: of the result.
  """
  size = their_rows if size is None else size
  kept = min(their_rows if kept is None else kept, size)
  tree: dict[str, Any] = {}
  for row in rows(config, their_rows):
    if row.wide:
      value = np.zeros((config.padded(size), config.width), dtype)
      value[:kept] = tensors[row.theirs][:kept]
    elif row.stacked:
      value = np.empty((config.layers, *row.shape), dtype)
      for layer, name in enumerate(_names(row, config.layers)):
        value[layer] = row.to_ours(tensors[name])
    else:
      value = row.to_ours(tensors[row.theirs]).astype(dtype)
    _put(tree, row.ours, value)
  return tree


def sizes(config: config_lib.Model, vocabulary_size: int) -> dict[str, int]:
  """Their names, in the order of `to_theirs`, and how many numbers each tensor has."""
  return {
    name: int(np.prod(row.their_shape))
    for row in rows(config, vocabulary_size)
    for name in _names(row, config.layers)
  }


def to_theirs(
  read: Callable[[tuple[str, ...]], np.ndarray],
  config: config_lib.Model,
  vocabulary_size: int,
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
  """Their names, each with a function that makes the tensor; no rows of padding.

  Args:
    read: gives our parameter at a path; called once a parameter, as the iterator comes to
      it, so that one of them is in memory at a time.
    config: the model.
    vocabulary_size: ids in use.
  """
  for row in rows(config, vocabulary_size):
    value = read(row.ours)
    for index, name in enumerate(_names(row, config.layers)):
      yield name, functools.partial(_theirs, row, value, index)
    del value  # before the next one is read


def _theirs(row: Row, value: np.ndarray, index: int) -> np.ndarray:
  return row.to_theirs(value[index] if row.stacked else value[: row.shape[0]])


def _names(row: Row, layers: int) -> list[str]:
  if not row.stacked:
    return [row.theirs]
  return [row.theirs.format(layer=layer) for layer in range(layers)]


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
