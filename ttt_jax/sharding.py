"""How arrays lie on the mesh: one table from logical axes to mesh axes."""

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax.ops import axes as axes_lib

AXES = ('slices', 'data', 'outer', 'fsdp', 'sequence', 'tensor')
ROWS = ('slices', 'data', 'outer', 'fsdp')  # those along which the rows of a batch are cut

# Parameters are cut along `fsdp` and `outer` by their model width and along `tensor` by what is
# computed in parallel; tables of the vocabulary by rows along all three, as no other cut leaves
# each device whole tiles of them. A batch is cut by rows along the axes of ROWS, a row along
# `sequence`. Along `slices`, which a slow network joins, only gradients are exchanged.
#
# FSDP has two axes because a TPU reduces, or gathers, along one ring of its torus at a time.
# Gradients are added up along `fsdp` first ('summed'), and what is left, as many times smaller,
# along `outer`; weights are gathered the other way round. Along several rings at once the
# compiler makes an all-reduce of either, which sends twice as much.
RULES = (
  ('batch', ROWS),
  ('length', 'sequence'),
  ('activation', None),
  ('embed', ('fsdp', 'outer')),
  ('summed', 'fsdp'),
  ('vocabulary', ('tensor', 'fsdp', 'outer')),
  ('heads', 'tensor'),
  ('kv_heads', 'tensor'),
  ('mlp', 'tensor'),
  ('head', None),
  ('layers', None),
)


def make_mesh(config: config_lib.Mesh, devices: list | None = None) -> Mesh:
  """A mesh of all devices, or of those in `devices`.

  Slices of TPUs lie along `slices`. Where devices know of no slices, as on a CPU, equal runs
  of them stand for slices.

  Raises:
    ConfigError: the sizes of the axes do not multiply to the number of devices, there are
      other slices, or the torus of the devices has no such mesh.
  """
  devices = jax.devices() if devices is None else devices
  sizes = [getattr(config, axis) for axis in AXES]
  known = int(np.prod([size for size in sizes if size > 0]))
  left = len(devices) // known
  if known * (left if -1 in sizes else 1) != len(devices):
    raise config_lib.ConfigError(
      f'config.mesh is {dict(zip(AXES, sizes))}, which does not make {len(devices)} devices'
    )
  slices, *shape = (left if size == -1 else size for size in sizes)
  own = {getattr(device, 'slice_index', None) for device in devices}
  if devices[0].platform == 'cpu':  # where several processes share a run, all are of slice 0
    own = {None}
  if own != {None} and len(own) != slices:
    raise config_lib.ConfigError(
      f'config.mesh.slices is {slices}, but the devices are of {len(own)} slices'
    )
  if own != {None}:
    devices = sorted(devices, key=lambda device: device.slice_index)
  parts = np.split(np.asarray(devices), slices)
  try:
    # An axis may be part of a ring of the torus, where no whole rings make its size.
    made = [
      mesh_utils.create_device_mesh(shape, list(part), allow_split_physical_axes=True)
      for part in parts
    ]
  except (NotImplementedError, ValueError) as error:
    raise config_lib.ConfigError(
      f'config.mesh is {dict(zip(AXES, sizes))}, which cannot be laid on these devices: {error}'
    ) from error
  layout = np.stack(made)
  return Mesh(layout, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def of_boxed(abstract, mesh: Mesh):
  """Shardings of a tree of linen's partitioned boxes, from `jax.eval_shape` of an init."""
  specs = nn.get_partition_spec(abstract)
  return nn.logical_to_mesh_sharding(specs, mesh, RULES)


def of_batch(mesh: Mesh) -> batch_lib.Batch:
  """Shardings of a batch: rows along the axes of `ROWS`, their positions along `sequence`."""
  where = NamedSharding(mesh, PartitionSpec(ROWS, 'sequence'))
  fields = dict.fromkeys(batch_lib.Batch._fields, where)
  return batch_lib.Batch(**fields | {'normalizer': NamedSharding(mesh, PartitionSpec(ROWS))})


def abstract_batch(
  mesh: Mesh, batch_size: int, row_length: int, streams: int
) -> batch_lib.Batch:
  """Shapes, dtypes and shardings of a global batch; nothing is allocated."""

  def one(where: NamedSharding, array: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch_size, *array.shape), array.dtype, sharding=where)

  return jax.tree.map(one, of_batch(mesh), batch_lib.empty(row_length, streams))


def of_rows(mesh: Mesh) -> Mesh:
  """The same devices, those of `sequence` given to `data`: for rows too short to be cut.

  What lies on `mesh` lies on this one as well, see `moved`.
  """
  sizes = dict(mesh.shape)
  apart = np.moveaxis(mesh.devices, AXES.index('sequence'), AXES.index('data') + 1)
  sizes['data'] *= sizes['sequence']
  sizes['sequence'] = 1
  devices = apart.reshape([sizes[axis] for axis in AXES])
  return Mesh(devices, AXES, axis_types=mesh.axis_types)


def moved(tree, mesh: Mesh):
  """Arrays of another mesh on this one, as `of_rows` gives it; nothing is copied."""

  def one(array: jax.Array) -> jax.Array:
    where = NamedSharding(mesh, array.sharding.spec)
    parts = [part.data for part in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, where, parts)

  return jax.tree.map(one, tree)


def rows_of(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are cut."""
  return int(np.prod([mesh.shape[axis] for axis in ROWS]))


def axes_of(name: str) -> tuple[str, ...]:
  """Axes of the mesh set by `jax.set_mesh` along which a logical axis is cut into parts."""
  axes = dict(RULES)[name] or ()
  axes = (axes,) if isinstance(axes, str) else axes
  sizes = jax.sharding.get_abstract_mesh().shape  # empty without a mesh
  return tuple(axis for axis in axes if sizes.get(axis, 1) > 1)


def axes_of_table() -> axes_lib.Axes:
  """How the embedding and the output layer lie on the mesh that is set, beside a batch."""
  batch, length, rows = map(axes_of, ('batch', 'length', 'vocabulary'))
  stored = tuple(axis for axis in rows if axis in batch + length)
  kept = tuple(axis for axis in rows if axis not in stored)
  return axes_lib.Axes(batch, length, kept, stored)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def rows_of_process(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Numbers of the rows of each global batch that this process must load, rising: int64 [n].

  They need not lie side by side: axes of the mesh follow rings of the torus, and a process has
  a square of chips, of which every ring crosses several. Processes that hold the same rows
  load the same.

  Raises:
    ConfigError: the rows cannot be divided among the devices.
  """
  ways = rows_of(mesh)
  if batch_size % ways:
    raise config_lib.ConfigError(
      f'config.data.batch_size is {batch_size}, but must be a multiple of '
      f'mesh.{" * mesh.".join(ROWS)} = {ways}'
    )
  parts = of_batch(mesh).normalizer.addressable_devices_indices_map((batch_size,)).values()
  starts = sorted({part.start or 0 for (part,) in parts})
  return np.add.outer(starts, np.arange(batch_size // ways)).ravel()


def check_batch(mesh: Mesh, batch_size: int, row_length: int, parts: int) -> None:
  """Raises ConfigError if a batch cannot be worked off in `parts` that use every device."""
  if row_length % mesh.shape['sequence']:
    raise config_lib.ConfigError(
      f'config.data.row_length is {row_length}, but must be a multiple of mesh.sequence = '
      f'{mesh.shape["sequence"]}'
    )
  ways = rows_of(mesh)
  if batch_size % (ways * parts):
    raise config_lib.ConfigError(
      f'config.data.batch_size is {batch_size}, but must be a multiple of '
      f'train.accumulate * mesh.{" * mesh.".join(ROWS)} = {parts} * {ways}'
    )


def put_batch(batch: batch_lib.Batch, mesh: Mesh, batch_size: int) -> batch_lib.Batch:
  """A global batch of `batch_size` rows on the mesh, from the rows that this process loads."""

  def put(where: NamedSharding, array: np.ndarray) -> jax.Array:
    shape = (batch_size, *array.shape[1:])
    return jax.make_array_from_process_local_data(where, array, shape)

  return jax.tree.map(put, of_batch(mesh), batch)


def check_model(config: config_lib.Model, mesh: Mesh) -> None:
  """Raises ConfigError if the model cannot be cut along the axes of parameters."""
  for axes, names in (
    (('tensor',), ('heads', 'kv_heads', 'mlp_width')),
    (('fsdp', 'outer'), ('width',)),
    (('tensor', 'fsdp', 'outer'), ('vocabulary_multiple',)),
  ):
    ways = int(np.prod([mesh.shape[axis] for axis in axes]))
    for name in names:
      if getattr(config, name) % ways:
        raise config_lib.ConfigError(
          f'config.model.{name} is {getattr(config, name)}, but must be a multiple of '
          f'mesh.{" * mesh.".join(axes)} = {ways}'
        )
