"""TPUs: what they are made of, and topologies of them to compile for."""

import dataclasses
import os
import re

from ttt_jax import errors

GIB = 2**30


class TopologyError(errors.UserError):
  """There is no such topology, or nothing here that compiles for it."""


@dataclasses.dataclass(frozen=True)
class Chip:
  """A generation of TPUs, by chip, as Cloud TPU's documentation gives it.

  Attributes:
    flops: bfloat16 operations a second, at most.
    memory: bytes that a program can use; what the compiler says, not what the chip has.
    bandwidth: bytes a second to and from that memory.
    links: bytes a second that it can send over all its links to neighbours together.
    network: bytes a second that it can send to another slice: its part of its host's.
    cores: devices, in the eyes of JAX, of which each has an equal part of all these.
  """

  flops: float
  memory: float
  bandwidth: float
  links: float
  network: float
  cores: int = 1


CHIPS = {
  'v4': Chip(275e12, 2 * 15.25 * GIB, 1200e9, 300e9, 6.25e9, cores=2),
  'v5e': Chip(197e12, 15.75 * GIB, 819e9, 200e9, 3.125e9),
  'v5p': Chip(459e12, 95.73 * GIB, 2765e9, 600e9, 6.25e9),
  'v6e': Chip(918e12, 31.24 * GIB, 1600e9, 400e9, 12.5e9),
  'tpu7x': Chip(2307e12, 2 * 94.74 * GIB, 7380e9, 600e9, 12.5e9, cores=2),
}

_NAME = re.compile(r'(?P<chip>\w+):(?P<shape>\d+(x\d+){1,2})(\*(?P<slices>\d+))?')
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',  # there is no such machine to ask
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # any; the topology says what is meant
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}


def parse(topology: str) -> tuple[Chip, int]:
  """The chip of a topology, and how many slices there are.

  Args:
    topology: such as 'v5e:16x16', 'v5p:4x4x4', or 'v5e:16x16*2' for two slices.

  Raises:
    TopologyError: it is not written so, or there is no such chip.
  """
  found = _NAME.fullmatch(topology)
  if not found or found['chip'] not in CHIPS:
    raise TopologyError(
      f'{topology!r} is no topology: write one as v5e:16x16, v5p:4x4x4 or, for two slices, '
      f'v5e:16x16*2, with a chip among {", ".join(CHIPS)}'
    )
  return CHIPS[found['chip']], int(found['slices'] or 1)


def devices(topology: str) -> list:
  """Devices that can be compiled for, but not run on.

  Raises:
    TopologyError: there is no such topology, or libtpu, the compiler, is not installed.
  """
  _, slices = parse(topology)
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  # Late, for it reads the environment.
  from jax.experimental import topologies

  try:
    import libtpu as _  # noqa: F401
  except ImportError as error:
    raise TopologyError('planning needs the compiler for TPUs: pip install libtpu') from error
  try:
    made = topologies.get_topology_desc(
      platform='tpu', topology_name=topology.split('*')[0], num_slices=slices
    )
  except Exception as error:  # whatever the plug-in raises
    raise TopologyError(
      f'libtpu knows no topology {topology!r}: {str(error).splitlines()[0]}'
    ) from error
  return list(made.devices)
