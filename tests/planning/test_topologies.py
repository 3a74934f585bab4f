import sys
import types

import pytest
from machines import by_libtpu

from ttt_jax import chips, sharding
from ttt_jax import config as config_lib
from ttt_jax.planning import topologies


@by_libtpu
@pytest.mark.parametrize(
  'topology', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1']
)
def test_the_devices_of_four_chips_have_four_peaks(topology):
  chip, slices = topologies.parse(topology)
  peaks = [chips.peak(device) for device in topologies.devices(topology)]
  assert slices == 1 and sum(peaks) == 4 * chip.flops
  assert len(peaks) == (8 if topology.startswith('tpu7x') else 4)  # a v4 runs as one


@by_libtpu
@pytest.mark.parametrize('topology', ['v4:2x2x2', 'v5e:4x4', 'tpu7x:2x2x2'])
def test_every_mesh_can_be_laid_on_a_torus(topology):
  devices = topologies.devices(topology)
  sizes = dict(slices=1, data=1, outer=1, fsdp=-1, sequence=1, tensor=2)
  mesh = sharding.make_mesh(config_lib.Mesh(**sizes | {'sequence': 2}), devices)
  assert mesh.shape['sequence'] == mesh.shape['tensor'] == 2
  assert set(mesh.devices.flat) == set(devices)


def test_a_v4_may_be_one_device_of_two_cores_and_other_devices_have_no_known_peak():
  whole = types.SimpleNamespace(device_kind='TPU v4', num_cores=2)
  assert chips.peak(whole) == chips.CHIPS['v4'].flops
  assert chips.peak(types.SimpleNamespace(device_kind='cpu')) is None


def test_without_the_compiler_one_is_told_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'libtpu', None)
  with pytest.raises(topologies.TopologyError, match=r"pip install 'ttt_jax\[plan\]'"):
    topologies.devices('v5e:2x2')


@pytest.mark.parametrize(
  'topology,said',
  [
    ('v5e', 'write one as v5e:16x16'),
    ('v5e:2x2*', 'write one as v5e:16x16'),
    ('v9:2x2', 'among v4, v5e'),
    ('v5e:2x2*0', 'write one as v5e:16x16'),
    ('v5e:2x2x2', 'has 2 dimensions'),
    ('v5p:4x4', 'has 3 dimensions'),
    pytest.param('v5e:3x5', 'knows no', marks=by_libtpu),
  ],
)
def test_topologies_that_there_are_not_are_refused(topology, said):
  with pytest.raises(topologies.TopologyError, match=said):
    topologies.devices(topology)
