"""Many plans: what there is to try, and a place to keep what was compiled."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence

from ttt_jax import config as config_lib
from ttt_jax import json_file
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import formula
from ttt_jax.planning import plan as plan_lib
from ttt_jax.planning import topologies

REMATS = ('none', 'products', 'gate', 'attention', 'full')
_SOURCES = ('model', 'ops', 'planning', 'training', 'batch.py', 'chips.py', 'losses.py')
_SOURCES += ('sharding.py',)


def candidates(
  config: config_lib.Config, topology: str, rows: Sequence[int] = (1, 2)
) -> Iterator[config_lib.Config]:
  """Settings to try.

  Meshes that cut rows alone, and those that cut the model by FSDP, along one axis or, where
  `fsdp` is of whole rings of the torus, two, alone and with others; each
  with so many `rows` for each part of a batch, which is worked off at once, and each with
  every remat policy.
  """
  for mesh, each, remat in itertools.product(_meshes(topology), rows, REMATS):
    ways = mesh.slices * mesh.data * mesh.outer * mesh.fsdp
    yield dataclasses.replace(
      config,
      mesh=mesh,
      model=dataclasses.replace(config.model, remat=remat),
      data=dataclasses.replace(config.data, batch_size=each * ways),
      train=dataclasses.replace(config.train, accumulate=1),
    )


def _meshes(topology: str) -> Iterator[config_lib.Mesh]:
  """Of all devices of a topology, none of them twice."""
  slices = topologies.parse(topology)[1]
  each, rings = len(topologies.devices(topology)) // slices, topologies.rings(topology)
  chosen = (some for n in range(1, len(rings)) for some in itertools.combinations(rings, n))
  whole = {math.prod(some) for some in chosen} - {1}
  for sequence, tensor in itertools.product((1, 2), (1, 2, 4)):
    ways, left = divmod(each, sequence * tensor)
    for fsdp in sorted(whole | {ways}):
      if ways and not left and ways % fsdp == 0:
        yield config_lib.Mesh(slices, 1, ways // fsdp, fsdp, sequence, tensor)
  if each > 1:
    yield config_lib.Mesh(slices, each, 1, 1, 1, 1)


def kept(
  config: config_lib.Config,
  vocabulary: vocabulary_lib.Vocabulary,
  topology: str,
  rows: formula.Rows,
  folder: pathlib.Path | None,
) -> plan_lib.Plan:
  """As `plan.make`; a plan that was made before is read from `folder`.

  It is made anew where settings, topology, versions, flags of the compiler or this package's
  own code have changed, and where the file is not as it was written.

  Raises:
    ConfigError: the mesh does not fit the topology, the model or the batch.
    TopologyError: there is no such topology.
  """
  if folder is None:
    return plan_lib.make(config, vocabulary, topology, rows)
  depends = [config.to_dict(), dataclasses.asdict(vocabulary), topology, rows, _versions()]
  key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:20]
  path = folder / f'{key}.json'
  if path.exists():
    told, _, text = path.read_bytes().partition(b'\n')
    if told == _hash(text):
      with contextlib.suppress(ValueError):
        return plan_lib.from_dict(json_file.parse(text))
    # To make it again mends it.
  made = plan_lib.make(config, vocabulary, topology, rows)
  folder.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix('.partial')
  text = json.dumps(made.to_dict()).encode()
  partial.write_bytes(_hash(text) + b'\n' + text)
  partial.replace(path)
  return made


def _hash(text: bytes) -> bytes:
  return hashlib.sha256(text).hexdigest().encode()


@functools.cache
def _versions() -> list[str]:
  """Of all that decides what a step is compiled to."""
  package = pathlib.Path(__file__).parents[1]
  found = hashlib.sha256()
  for source in _SOURCES:
    path = package / source
    for file in sorted(path.rglob('*.py')) if path.is_dir() else [path]:
      found.update(file.read_bytes())
  names = ('jax', 'jaxlib', 'libtpu', 'flax', 'optax')
  told = (os.environ.get(name, '') for name in ('LIBTPU_INIT_ARGS', 'XLA_FLAGS'))
  return [found.hexdigest(), *map(importlib.metadata.version, names), *told]
