"""Topologies of TPUs, to compile for."""

import math
import os
import re

from ttt_jax import chips, errors


class TopologyError(errors.UserError):
  """There is no such topology, or nothing here that compiles for it."""


_NAME = re.compile(r'(?P<chip>\w+):(?P<shape>\d+(x\d+){1,2})(\*(?P<slices>[1-9]\d*))?')
_FLAT = ('v5e', 'v6e')  # of two dimensions, the others of three
_MEGACORE = ('v4',)  # whose cores Cloud TPU joins to one device, though libtpu would not
_ENVIRONMENT = {
  'TPU_SKIP_MDS_QUERY': '1',  # there is no such machine to ask
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # any; the topology says what is meant
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}


def parse(topology: str) -> tuple[chips.Chip, int]:
  """The chip of a topology, and how many slices there are.

  Args:
    topology: such as 'v5e:16x16', 'v5p:4x4x4', or 'v5e:16x16*2' for two slices.

  Raises:
    TopologyError: it is not written so, or there is no such chip.
  """
  found = _NAME.fullmatch(topology)
  if not found or found['chip'] not in chips.CHIPS:
    raise TopologyError(
      f'{topology!r} is no topology: write one as v5e:16x16, v5p:4x4x4 or, for two slices, '
      f'v5e:16x16*2, with a chip among {", ".join(chips.CHIPS)}'
    )
  dimensions = 2 if found['chip'] in _FLAT else 3
  if found['shape'].count('x') + 1 != dimensions:
    raise TopologyError(
      f'{topology!r} is no topology: one of {found["chip"]} has {dimensions} dimensions'
    )
  return chips.CHIPS[found['chip']], int(found['slices'] or 1)


def rings(topology: str) -> tuple[int, ...]:
  """Chips along each dimension of the torus that a slice is.

  Raises:
    TopologyError: as `parse`.
  """
  parse(topology)
  return tuple(map(int, topology.split('*')[0].split(':')[1].split('x')))


def devices(topology: str) -> list:
  """Devices that can be compiled for, but not run on.

  Raises:
    TopologyError: there is no such topology, or libtpu, the compiler, is not installed.
  """
  _, slices = parse(topology)
  name = topology.split('*')[0]
  more = {'chip_config_name': 'megacore'} if name.split(':')[0] in _MEGACORE else {}
  if math.prod(rings(topology)) == 1:  # libtpu thinks of hosts of four
    more['chips_per_host_bounds'] = (1, 1, 1)
  for key, value in _ENVIRONMENT.items():
    os.environ.setdefault(key, value)
  # Late, for it reads the environment.
  from jax.experimental import topologies

  try:
    import libtpu as _  # noqa: F401
  except ImportError as error:
    raise TopologyError(
      "planning needs the compiler for TPUs: pip install 'ttt_jax[plan]', on Linux and x86-64, "
      'the only machines that it is made for'
    ) from error
  try:
    made = topologies.get_topology_desc(
      platform='tpu', topology_name=name, num_slices=slices, **more
    )
  except Exception as error:  # whatever the plug-in raises
    raise TopologyError(
      f'libtpu knows no topology {topology!r}: {str(error).splitlines()[0]}'
    ) from error
  return list(made.devices)
