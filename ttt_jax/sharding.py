"""How arrays lie on the mesh: one table from logical axes to mesh axes."""

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib

AXES = ('data', 'fsdp', 'tensor')

# Parameters are cut along `fsdp` by their model width and along `tensor` by what is computed
# in parallel; a batch is cut by rows along both `data` and `fsdp`.
RULES = (
  ('batch', ('data', 'fsdp')),
  ('length', None),
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
  """Shardings of a batch: rows along `data` and `fsdp`."""
  rows = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
  return batch_lib.Batch(*(rows for _ in batch_lib.Batch._fields))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: batch_lib.Batch, mesh: Mesh) -> batch_lib.Batch:
  """A global batch on the mesh, from the rows that this process holds."""
  return jax.tree.map(jax.make_array_from_process_local_data, of_batch(mesh), batch)
