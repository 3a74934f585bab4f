"""How the arrays of the embedding and of the output layer lie on a mesh."""

from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec


class Axes(NamedTuple):
  """Mesh axes along which arrays are cut; () is whole, and all are without a mesh.

  Attributes:
    batch: of the rows of a batch.
    length: of the positions of a row.
    vocabulary: of the rows of a table of the vocabulary, [V, D].
    stored: of the rows of each such part, which are gathered to be used; each must be one of
      the axes of `batch` or `length`.
  """

  batch: tuple[str, ...] = ()
  length: tuple[str, ...] = ()
  vocabulary: tuple[str, ...] = ()
  stored: tuple[str, ...] = ()

  @property
  def tokens(self) -> tuple[str, ...]:
    """Axes along which positions are cut."""
    return self.batch + self.length

  @property
  def of_tokens(self) -> PartitionSpec:
    """Of an array [B, L, ...]."""
    return PartitionSpec(self.batch, self.length)

  @property
  def of_table(self) -> PartitionSpec:
    """Of an array [V, D]."""
    return PartitionSpec(self.vocabulary + self.stored)

  def check(self) -> None:
    """Raises ValueError if a table is stored along axes that do not cut the positions."""
    if not set(self.stored) <= set(self.tokens):
      raise ValueError(f'a table is stored along {self.stored}, positions along {self.tokens}')


def gather(table: jax.Array, axes: Axes) -> jax.Array:
  """Within shard_map: the rows [V / vocabulary, D] of a table, from where they are stored."""
  for axis in reversed(axes.stored):
    table = jax.lax.all_gather(table, axis, axis=0, tiled=True)
  return table


def reduce(gradient: jax.Array, axes: Axes, dtype) -> jax.Array:
  """Within shard_map: the sum over all positions of a table's gradient, stored as the table.

  Args:
    gradient: [V / vocabulary, D], of the positions of this device.
    axes: how the table and the positions lie.
    dtype: in which devices add up.
  """
  gradient = gradient.astype(dtype)
  for axis in axes.stored:  # each time less is left to send
    gradient = jax.lax.psum_scatter(gradient, axis, scatter_dimension=0, tiled=True)
  if rest := tuple(axis for axis in axes.tokens if axis not in axes.stored):
    gradient = jax.lax.psum(gradient, rest)
  return gradient


def varying(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
  """Tells shard_map that `x` will differ from device to device along the axes `names`."""
  return jax.lax.pcast(x, names, to='varying') if names else x
