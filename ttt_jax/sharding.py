"""How arrays lie on the mesh: one table from logical axes to mesh axes."""

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib

AXES = ('data', 'fsdp', 'sequence', 'tensor')

# Parameters are cut along `fsdp` by their model width and along `tensor` by what is computed
# in parallel; a batch is cut by rows along both `data` and `fsdp`, a row along `sequence`.
RULES = (
  ('batch', ('data', 'fsdp')),
  ('length', 'sequence'),
  ('activation', None),
  ('embed', 'fsdp'),
  ('vocabulary', 'tensor'),
  ('heads', 'tensor'),
  ('kv_heads', 'tensor'),
  ('mlp', 'tensor'),
  ('head', None),
  ('layers', None),
)


def make_mesh(config: config_lib.Mesh, devices: list | None = None) -> Mesh:
  """A mesh of all devices.

  Raises:
    ConfigError: the sizes of the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [getattr(config, axis) for axis in AXES]
  known = int(np.prod([size for size in sizes if size > 0]))
  left = len(devices) // known
  if known * (left if -1 in sizes else 1) != len(devices):
    raise config_lib.ConfigError(
      f'config.mesh is {dict(zip(AXES, sizes))}, which does not make {len(devices)} devices'
    )
  shape = [left if size == -1 else size for size in sizes]
  types = (AxisType.Auto,) * len(AXES)
  return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


def of_boxed(abstract, mesh: Mesh):
  """Shardings of a tree of linen's partitioned boxes, from `jax.eval_shape` of an init."""
  specs = nn.get_partition_spec(abstract)
  return nn.logical_to_mesh_sharding(specs, mesh, RULES)


def of_batch(mesh: Mesh) -> batch_lib.Batch:
  """Shardings of a batch: rows along `data` and `fsdp`, their positions along `sequence`."""
  rows, positions = ('data', 'fsdp'), 'sequence'
  where = NamedSharding(mesh, PartitionSpec(rows, positions))
  fields = dict.fromkeys(batch_lib.Batch._fields, where)
  return batch_lib.Batch(**fields | {'normalizer': NamedSharding(mesh, PartitionSpec(rows))})


def axes_of(name: str) -> tuple[str, ...]:
  """Axes of the mesh set by `jax.set_mesh` along which a logical axis is cut into parts."""
  axes = dict(RULES)[name] or ()
  axes = (axes,) if isinstance(axes, str) else axes
  sizes = jax.sharding.get_abstract_mesh().shape  # empty without a mesh
  return tuple(axis for axis in axes if sizes.get(axis, 1) > 1)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def shard_of_process(mesh: Mesh, batch_size: int) -> tuple[int, int]:
  """Which part of each global batch this process must load: its number, and how many.

  Processes that hold the same rows load the same part.

  Raises:
    ConfigError: the rows cannot be divided among the devices, or lie scattered.
  """
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size % ways:
    raise config_lib.ConfigError(
      f'config.data.batch_size is {batch_size}, but must be a multiple of '
      f'mesh.data * mesh.fsdp = {ways}'
    )
  rows = of_batch(mesh).normalizer.addressable_devices_indices_map((batch_size,))
  parts = {(part.start or 0, part.stop or batch_size) for (part,) in rows.values()}
  start, stop = min(first for first, _ in parts), max(last for _, last in parts)
  size = sum(last - first for first, last in parts)
  if stop - start != size or start % size or batch_size % size:
    raise config_lib.ConfigError(
      f'config.mesh gives process {jax.process_index()} scattered rows of a batch: {parts}'
    )
  return start // size, batch_size // size


def check_batch(mesh: Mesh, batch_size: int, row_length: int, parts: int) -> None:
  """Raises ConfigError if a batch cannot be worked off in `parts` that use every device."""
  if row_length % mesh.shape['sequence']:
    raise config_lib.ConfigError(
      f'config.data.row_length is {row_length}, but must be a multiple of mesh.sequence = '
      f'{mesh.shape["sequence"]}'
    )
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  if batch_size % (ways * parts):
    raise config_lib.ConfigError(
      f'config.data.batch_size is {batch_size}, but must be a multiple of '
      f'train.accumulate * mesh.data * mesh.fsdp = {parts} * {ways}'
    )


def put_batch(batch: batch_lib.Batch, mesh: Mesh, batch_size: int) -> batch_lib.Batch:
  """A global batch of `batch_size` rows on the mesh, from the part that this process loads."""

  def put(where: NamedSharding, array: np.ndarray) -> jax.Array:
    shape = (batch_size, *array.shape[1:])
    return jax.make_array_from_process_local_data(where, array, shape)

  return jax.tree.map(put, of_batch(mesh), batch)


def check_model(config: config_lib.Model, mesh: Mesh) -> None:
  """Raises ConfigError if the model cannot be cut along `tensor` or `fsdp`."""
  for axis, names in (
    ('tensor', ('heads', 'kv_heads', 'mlp_width', 'vocabulary_multiple')),
    ('fsdp', ('width',)),
  ):
    for name in names:
      if getattr(config, name) % mesh.shape[axis]:
        raise config_lib.ConfigError(
          f'config.model.{name} is {getattr(config, name)}, but must be a multiple of '
          f'mesh.{axis} = {mesh.shape[axis]}'
        )
