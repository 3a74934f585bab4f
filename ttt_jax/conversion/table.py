"""One table of parameters for both directions: our tree, and Hugging Face's flat names.

Qwen2, Qwen3 and Llama share it; which rows a model has follows from its settings. Weights of
linear layers lie transposed over there ([out, in]), and each layer has tensors of its own where
ours are stacked.
"""

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


def to_ours(
  tensors: Mapping[str, np.ndarray], config: config_lib.Model, vocabulary_size: int
) -> dict[str, Any]:
  """Our tree of float32 parameters.

  Args:
    tensors: theirs, by name; each is taken once, so that a lazy mapping stays small.
    config: the model.
    vocabulary_size: rows of their embedding; ours is padded by zeros to `config.padded`.

  Raises:
    ConversionError: lists every tensor that is missing, unexpected or wrongly shaped.
  """
  table = rows(config, vocabulary_size)
  names = [name for row in table for name in _names(row, config.layers)]
  refuse = [f'missing: {name}' for name in names if name not in tensors]
  refuse += [f'unexpected: {name}' for name in sorted(set(tensors) - set(names))]
  tree: dict[str, Any] = {}
  for row in table:
    parts = []
    for name in _names(row, config.layers):
      if name not in tensors:
        continue
      tensor = np.asarray(tensors[name], np.float32)
      if tensor.shape == row.their_shape:
        parts.append(row.to_ours(tensor))
      else:
        refuse.append(f'{name}: shape {tensor.shape}, wanted {row.their_shape}')
    if not refuse:
      value = np.stack(parts) if row.stacked else parts[0]
      if row.ours in (('embedding',), ('head',)):
        more = config.padded(vocabulary_size) - vocabulary_size
        value = np.pad(value, ((0, more), (0, 0)))
      _put(tree, row.ours, value)
  if refuse:
    raise ConversionError('the tensors do not fit the model:\n  ' + '\n  '.join(refuse))
  return tree


def to_theirs(
  params: Mapping[str, Any], config: config_lib.Model, vocabulary_size: int
) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
  """Their names, each with a function that makes the tensor; no rows of padding."""
  for row in rows(config, vocabulary_size):
    value = params
    for key in row.ours:
      value = value[key]
    for index, name in enumerate(_names(row, config.layers)):

      def make(row=row, value=value, index=index):
        part = value[index] if row.stacked else value[: row.shape[0]]
        return row.to_theirs(np.asarray(part))

      yield name, make


def _names(row: Row, layers: int) -> list[str]:
  if not row.stacked:
    return [row.theirs]
  return [row.theirs.format(layer=layer) for layer in range(layers)]


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
  for key in path[:-1]:
    tree = tree.setdefault(key, {})
  tree[path[-1]] = value
