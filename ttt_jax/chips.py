"""TPUs: what they are made of."""

import dataclasses
from typing import Any

GIB = 2**30


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

# What JAX calls the devices of each.
_KINDS = {
  'TPU v4': 'v4',
  'TPU v5 lite': 'v5e',
  'TPU v5e': 'v5e',
  'TPU v5': 'v5p',
  'TPU v5p': 'v5p',
  'TPU v6 lite': 'v6e',
  'TPU v6e': 'v6e',
  'TPU7x': 'tpu7x',
}


def peak(device: Any) -> float | None:
  """The bfloat16 operations a second of a device of JAX, at most; None where not known."""
  if device.device_kind not in _KINDS:
    return None
  chip = CHIPS[_KINDS[device.device_kind]]
  # A v4 may also be one device of two cores, as a v5p always is.
  return chip.flops * min(1, device.num_cores / chip.cores)
