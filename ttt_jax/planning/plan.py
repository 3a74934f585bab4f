"""A plan: the real training step, compiled for TPUs that need not exist, and what it takes."""

import dataclasses
import math
import re
import time

import jax
import jax.numpy as jnp

from ttt_jax import chips, errors, sharding
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.model import formula
from ttt_jax.planning import hlo, topologies, work
from ttt_jax.training import program, state

# Operations of a pair of a query and a key, a head's width, by kernel: the backward kernels
# compute the scores anew.
_KERNELS = {'interval_forward': 4, 'interval_d_q': 6, 'interval_d_kv': 8}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a step takes. Bytes, operations and seconds are those of one device.

  Attributes:
    topology: such as 'v5e:16x16'.
    devices: how many.
    share: of a chip, that a device is.
    mesh: sizes of its axes.
    batch: rows of a global batch, positions of a row, and parts it is worked off in.
    remat: what the backward pass computes anew.
    rows: what rows are like.
    parameters: of the model.
    state: bytes of parameters, moments and a batch.
    temporaries: bytes of all else, at the worst moment.
    memory: bytes that there are.
    needed: operations of a step by the formula, whatever is computed anew.
    compiled: operations of the compiled step, its kernels included.
    least_sent: bytes that FSDP alone must send.
    traffic: what is sent, by collective and axis.
    compile_seconds: how long compiling took.
  """

  topology: str
  devices: int
  share: float
  mesh: dict[str, int]
  batch: tuple[int, int, int]
  remat: str
  rows: formula.Rows
  parameters: int
  state: int
  temporaries: int
  memory: float
  needed: float
  compiled: float
  least_sent: float
  traffic: tuple[work.Traffic, ...]
  compile_seconds: float

  @property
  def chip(self) -> chips.Chip:
    """What the devices are, or are parts of."""
    return topologies.parse(self.topology)[0]

  @property
  def fits(self) -> bool:
    """Whether there is memory enough."""
    return self.used <= self.memory

  @property
  def used(self) -> int:
    """Bytes at the worst moment."""
    return self.state + self.temporaries

  @property
  def positions(self) -> float:
    """Positions of a step that one device works on."""
    return self.batch[0] * self.batch[1] / self.devices

  @property
  def bounds(self) -> dict[str, float]:
    """Seconds that a step takes at least, by what there is to do: the roofline.

    Products at the chip's peak; each byte of the state read and written once; what is sent
    over links and between slices at their full speed. Each is a lower bound, and so is the
    greatest of them, which supposes that all are done at the same time.
    """
    chip, share = self.chip, self.share
    apart = [t.sent for t in self.traffic if 'slices' in t.axes]
    near = [t.sent for t in self.traffic if 'slices' not in t.axes]
    return {
      'compute': self.compiled / (chip.flops * share),
      'memory': 2 * self.state / (chip.bandwidth * share),
      'links': sum(near) / (chip.links * share),
      'network': sum(apart) / (chip.network * share),
    }

  @property
  def seconds(self) -> float:
    """What a step takes at least."""
    return max(self.bounds.values())

  @property
  def mfu(self) -> float:
    """The highest share of the chip's peak that the operations needed can reach."""
    return self.needed / (self.chip.flops * self.share) / self.seconds

  @property
  def tokens_per_second(self) -> float:
    """Of all devices together, at most; padding does not count."""
    return self.batch[0] * self.batch[1] * self.rows.fill / self.seconds

  def to_dict(self) -> dict:
    """All of it, derived figures too, for JSON; None for those that nothing is known of."""
    out = dataclasses.asdict(self)
    out['rows'] = self.rows._asdict()
    out['traffic'] = [t._asdict() for t in self.traffic]
    for name in ('fits', 'used'):
      out[name] = getattr(self, name)
    for name in ('bounds', 'mfu', 'tokens_per_second'):
      out[name] = getattr(self, name) if self.compiled else None
    return out


def from_dict(values: dict) -> Plan:
  """A plan from what `Plan.to_dict` gave, after a journey through JSON.

  Raises:
    ValueError: these are not the values of a plan.
  """
  try:
    kept = {field.name: values[field.name] for field in dataclasses.fields(Plan)}
    kept['rows'] = formula.Rows(**kept['rows'])
    kept['batch'] = tuple(kept['batch'])
    traffic = ({**t, 'axes': tuple(t['axes'])} for t in kept['traffic'])
    kept['traffic'] = tuple(work.Traffic(**t) for t in traffic)
    made = Plan(**kept)
    if not _is_sound(made):
      raise ValueError('a value is not of its kind')
    made.to_dict()  # what follows from them
  except (ArithmeticError, AttributeError, KeyError, TypeError, errors.UserError) as error:
    raise ValueError(f'not the values of a plan: {error!r}') from error
  return made


def _is_sound(plan: Plan) -> bool:
  """Whether texts are texts, and numbers are what can be reckoned with."""
  texts = [plan.topology, plan.remat, *plan.mesh]
  numbers = [*plan.mesh.values(), *plan.batch, *plan.rows]
  for field in dataclasses.fields(plan):
    if field.type in (int, float):
      numbers.append(getattr(plan, field.name))
  for each in plan.traffic:
    texts += [each.kind, each.dtype, *each.axes]
    numbers.append(each.sent)
  shaped = len(plan.batch) == 3 and all(isinstance(text, str) for text in texts)
  divided_by = plan.devices, plan.share, plan.memory, plan.needed, *plan.batch
  return shaped and all(0 <= n < 1e30 for n in numbers) and all(n > 0 for n in divided_by)


class _Assumed:
  """Stands for a tokenizer of which nothing but the size is known."""

  fingerprint = ''

  def __init__(self, size: int):
    self.size = size

  def special(self, name: str) -> int:
    """The last ids, as those of added tokens are."""
    return self.size - 1 - vocabulary_lib.TEXT_SPECIALS.index(name)


def assumed(text: int, codes: int) -> vocabulary_lib.Vocabulary:
  """A vocabulary of `text` text tokens, and a codec of `codes` codes."""
  return vocabulary_lib.Vocabulary.extend(_Assumed(text), codes)


def make(
  config: config_lib.Config,
  vocabulary: vocabulary_lib.Vocabulary,
  topology: str,
  rows: formula.Rows,
) -> Plan:
  """Compiles the step that `config` describes for a topology; nothing is allocated.

  Where it does not fit, the compiler tells the memory that it would need, and nothing else;
  and there are programs of which it gives no text. Then there is no traffic, and `compiled`
  is 0.

  Raises:
    ConfigError: the mesh does not fit the topology, the model or the batch.
    TopologyError: there is no such topology.
  """
  if config.model.attention == 'gpu':
    raise config_lib.ConfigError(
      "config.model.attention is 'gpu', but a plan is for TPUs: choose 'auto'"
    )
  mesh = sharding.make_mesh(config.mesh, topologies.devices(topology))
  parts = program.assemble(config, vocabulary, mesh)
  plan = _laid_out(config, vocabulary, topology, rows, mesh, parts.layout)
  arrays = sharding.abstract_batch(
    mesh, config.data.batch_size, config.data.row_length, config.objective.streams
  )
  started = time.monotonic()
  try:
    compiled = parts.step.lower(parts.layout, arrays).compile()
  except jax.errors.JaxRuntimeError as error:
    return dataclasses.replace(plan, temporaries=_wanted(error, plan))
  taken = compiled.memory_analysis()
  plan = dataclasses.replace(
    plan,
    state=taken.argument_size_in_bytes,  # with the batch, and padded as the device does
    temporaries=taken.peak_memory_in_bytes - taken.argument_size_in_bytes,
    compile_seconds=time.monotonic() - started,
  )
  try:
    text = hlo.Program(compiled.as_text())
  except jax.errors.JaxRuntimeError:  # as libtpu 0.0.52 trips over its own programs
    return plan
  return _counted(plan, config.model, text)


def _laid_out(config, vocabulary, topology, rows, mesh, layout) -> Plan:
  """What is known of a plan before anything is compiled."""
  chip, _ = topologies.parse(topology)
  data, model, parameters = config.data, config.model, state.count(layout.params)
  share = chips.peak(mesh.devices.flat[0]) / chip.flops
  ways = mesh.shape['fsdp'] * mesh.shape['outer']
  widths = jnp.dtype(model.dtype).itemsize, jnp.dtype(model.reduce_dtype).itemsize
  sent = formula.gathered(model, parameters, ways, *widths) / mesh.shape['tensor']
  here = data.batch_size * data.row_length / mesh.size
  return Plan(
    topology=topology,
    devices=mesh.size,
    share=share,
    mesh=dict(mesh.shape),
    batch=(data.batch_size, data.row_length, config.train.accumulate),
    remat=model.remat,
    rows=rows,
    parameters=parameters,
    state=sum(_held(leaf) for leaf in jax.tree.leaves(layout)),
    temporaries=0,
    memory=chip.memory * share,
    needed=here * formula.training(model, vocabulary.size, rows),
    compiled=0.0,
    least_sent=sent * config.train.accumulate,  # each part gathers and reduces anew
    traffic=(),
    compile_seconds=0.0,
  )


def _counted(plan: Plan, model: config_lib.Model, text: hlo.Program) -> Plan:
  """With what the compiled step computes and sends."""
  # The loss goes round its loop as often as a device's targets need; so often in each part.
  positions = plan.positions / plan.batch[2]
  targets = positions * plan.mesh['tensor'] * plan.rows.targets
  rounds = math.ceil(targets / model.loss_chunk)
  operations = work.flops(text, rounds)
  for name, runs in work.kernels(text, rounds).items():
    if name not in _KERNELS:
      raise ValueError(f'the step runs the kernel {name}: say in _KERNELS what it computes')
    operations += (
      runs * positions * formula.attention(model, plan.rows, _KERNELS[name]) / model.layers
    )
  traffic = work.traffic(text, plan.mesh, rounds)
  return dataclasses.replace(plan, compiled=operations, traffic=tuple(traffic))


def _held(leaf: jax.ShapeDtypeStruct) -> int:
  """Bytes of an array on one device."""
  return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _wanted(error: Exception, plan: Plan) -> int:
  """The temporaries that a compiler which ran out of memory says it would need."""
  found = re.search(r'required for \w+ temporaries \(([\d.]+)([MG])\)', str(error))
  used = re.search(r'Used ([\d.]+)([MG]) of', str(error))
  unit = {'M': 2**20, 'G': 2**30}
  if used:
    return int(float(used[1]) * unit[used[2]]) - plan.state
  if found:
    return int(float(found[1]) * unit[found[2]])
  raise error
