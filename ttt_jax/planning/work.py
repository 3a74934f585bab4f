"""What a compiled program does: products, and what its devices send each other."""

import collections
import math
import re
from typing import NamedTuple

import numpy as np

from ttt_jax.planning import hlo

# What a device sends, as a part of the bytes of the result, where n devices take part and the
# algorithm is the best there is.
_SENT = {
  'all-gather': lambda size, n: size * (n - 1) / n,
  'reduce-scatter': lambda size, n: size * (n - 1),
  'all-reduce': lambda size, n: 2 * size * (n - 1) / n,
  'all-to-all': lambda size, n: size * (n - 1) / n,
  'collective-permute': lambda size, n: size,
}
_MEGASCALE = re.compile(r'_xla_megascale_transfer_type="(\w+)"')


class Traffic(NamedTuple):
  """Bytes that one device sends in a step, by collective.

  Attributes:
    kind: such as 'all-gather'; rings of permutations in which XLA hides a gather or a
      reduction behind a product are 'collective-permute'.
    axes: of the mesh along which devices take part.
    dtype: of what is sent.
    sent: bytes.
  """

  kind: str
  axes: tuple[str, ...]
  dtype: str
  sent: float


def flops(program: hlo.Program, open_loop: float) -> float:
  """Operations of all products that one device computes, two a multiplication and addition.

  Those within Pallas kernels are not seen.
  """
  total = 0.0
  for _, body, times in program.computations(open_loop):
    for instruction in body.values():
      if instruction.opcode == 'dot':
        total += times * _of_dot(instruction, body)
      elif instruction.opcode == 'convolution':
        total += times * _of_convolution(instruction, body)
  return total


def kernels(program: hlo.Program, open_loop: float) -> dict[str, float]:
  """How often each Pallas kernel runs, by its name."""
  runs = collections.Counter()
  for _, body, times in program.computations(open_loop):
    for instruction in body.values():
      if instruction.opcode == 'custom-call' and 'tpu_custom_call' in instruction.attributes:
        runs[instruction.name.split('.')[0]] += times  # a copy is numbered, or '.remat'
  return dict(runs)


def traffic(program: hlo.Program, mesh: dict[str, int], open_loop: float) -> list[Traffic]:
  """What one device sends in a step.

  Args:
    program: of a device.
    mesh: sizes of the axes, in the order of the mesh; its devices are numbered so.
    open_loop: how often a loop runs whose end is not known before.
  """
  sent, done = collections.Counter(), {}
  for name, body, times in program.computations(open_loop):
    for instruction in body.values():
      kind = instruction.opcode.removesuffix('-start')
      if between := _MEGASCALE.search(instruction.attributes):
        if instruction.opcode == 'send':  # by the hosts, from slice to slice
          kind, dtype = between[1].lower().replace('_', '-'), instruction.shapes[0][0]
          size = hlo.size_of(*instruction.shapes[0])
          size *= mesh['slices'] if kind == 'all-gather' else 1
          sent[kind, ('slices',), dtype] += times * _SENT[kind](size, mesh['slices'])
        continue
      if kind not in _SENT:
        continue
      # A gather that is overlapped with products stands once for each part of it.
      channel = re.search(r'channel_id=(\d+)', instruction.attributes)
      key = kind, channel[1] if channel else instruction.name
      if kind == 'all-gather' and done.get(key, 0) >= times:
        continue
      done[key] = times
      axes, count = _group(instruction, mesh)
      size = instruction.bytes
      if name.startswith('all-reduce-scatter'):  # so TPUs write a reduce-scatter
        kind, size = 'reduce-scatter', size / count
      if count > 1:
        dtype = instruction.shapes[0][0]
        sent[kind, axes, dtype] += times * _SENT[kind](size, count)
  return [Traffic(*key, value) for key, value in sorted(sent.items())]


def _of_dot(instruction: hlo.Instruction, body: dict) -> float:
  (_, left), *_ = body[instruction.operands[0]].shapes
  contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.attributes)[1]
  ways = math.prod(left[int(n)] for n in contracted.split(',') if n)
  return 2.0 * math.prod(instruction.shapes[0][1]) * ways


def _of_convolution(instruction: hlo.Instruction, body: dict) -> float:
  """TPUs compute products as convolutions, whose padding is not worked off."""
  labels = re.search(r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.attributes)
  inputs, kernel, output = labels.groups()
  (_, left), *_ = body[instruction.operands[0]].shapes
  (_, right), *_ = body[instruction.operands[1]].shapes
  out = instruction.shapes[0][1]
  total = 2.0 * right[kernel.index('i')] * out[output.index('f')] * out[output.index('b')]
  window = _window(instruction.attributes)
  for place in range(sum(letter.isdigit() for letter in inputs)):
    digit = str(place)
    size = left[inputs.index(digit)]
    steps = np.arange(out[output.index(digit)])[:, None] * window['stride'][place]
    taps = np.arange(right[kernel.index(digit)]) * window['rhs_dilate'][place]
    at = steps + taps - window['pad'][place]
    spread = window['lhs_dilate'][place]
    total *= ((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum()
  return total


def _window(attributes: str) -> dict[str, collections.defaultdict]:
  """By attribute and number of the spatial dimension; `pad` is that in front."""
  found = re.search(r'window=\{([^}]*)\}', attributes)
  parts = dict(part.split('=') for part in found[1].split()) if found else {}
  out = {}
  for name, default in (('stride', 1), ('rhs_dilate', 1), ('lhs_dilate', 1), ('pad', 0)):
    values = [int(v.split('_')[0]) for v in parts[name].split('x')] if name in parts else []
    out[name] = collections.defaultdict(lambda default=default: default, enumerate(values))
  return out


def _group(instruction: hlo.Instruction, mesh: dict[str, int]) -> tuple[tuple[str, ...], int]:
  """Axes along which the devices of a collective differ, and how many take part."""
  sizes = tuple(mesh.values())
  text = instruction.attributes
  if pairs := re.search(r'source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}', text):
    moves = np.array([int(n) for n in re.findall(r'\d+', pairs[1])]).reshape(-1, 2)
    groups, count = moves, 2
  else:
    groups = _replica_groups(text, math.prod(sizes))
    count = groups.shape[1]
  places = np.stack(np.unravel_index(groups, sizes))
  differ = (places != places[:, :, :1]).any((1, 2))
  return tuple(axis for axis, other in zip(mesh, differ) if other), count


def _replica_groups(text: str, devices: int) -> np.ndarray:
  """[groups, devices of a group], in any of the three ways in which they are written."""
  if found := re.search(r'replica_groups=\{((?:\{[\d,]*\},?)+)\}', text):
    rows = re.findall(r'\{([\d,]*)\}', found[1])
    return np.array([[int(n) for n in row.split(',')] for row in rows])
  if found := re.search(r'replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?', text):
    shape, dims, order = ([int(n) for n in (g or '').split(',') if n] for g in found.groups())
    ids = np.arange(math.prod(dims)).reshape(dims)
    return (ids.transpose(order) if order else ids).reshape(shape)
  if found := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', text):
    axes = {n: int(size) for n, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
    used = re.findall(r"'(\w+)'", found[2])
    names = list(axes)
    order = [names.index(n) for n in names if n not in used] + [names.index(n) for n in used]
    ids = np.arange(devices).reshape(tuple(axes.values())).transpose(order)
    return ids.reshape(-1, math.prod(axes[n] for n in used))
  return np.arange(devices)[None]
