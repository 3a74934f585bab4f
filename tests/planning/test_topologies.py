import types

import pytest

from ttt_jax import chips
from ttt_jax.planning import topologies


@pytest.mark.parametrize(
  'topology', ['v4:2x2x1', 'v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'tpu7x:2x2x1']
)
def test_the_devices_of_four_chips_have_four_peaks(topology):
  chip, slices = topologies.parse(topology)
  peaks = [chips.peak(device) for device in topologies.devices(topology)]
  assert slices == 1 and sum(peaks) == 4 * chip.flops
  assert len(peaks) == 4 * chip.cores


def test_a_v4_may_be_one_device_of_two_cores_and_other_devices_have_no_known_peak():
  whole = types.SimpleNamespace(device_kind='TPU v4', num_cores=2)
  assert chips.peak(whole) == chips.CHIPS['v4'].flops
  assert chips.peak(types.SimpleNamespace(device_kind='cpu')) is None


@pytest.mark.parametrize('name', ['v5e', 'v5e:16', 'v9:2x2', 'v5e:2x2*', 'v5e:7x9'])
def test_what_is_no_topology_is_refused(name):
  with pytest.raises(topologies.TopologyError, match=name.replace('*', r'\*')):
    topologies.devices(name)
