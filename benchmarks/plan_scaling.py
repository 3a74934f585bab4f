"""How a step's memory, work and traffic go with the number of chips, by compiling it for them.

    python benchmarks/plan_scaling.py [--quick] [--json FILE]

No TPU is needed, and none is measured: everything is read off the compiled step. One row of a
fixed length a chip, on more and more chips, with the state cut among all of them; and models of
7 B parameters at 8,192 tokens a row on three topologies. --quick takes a tiny model on 4 and 8
chips.
"""

import argparse
import importlib
import pathlib

import record

from ttt_jax import config as config_lib
from ttt_jax.model import formula
from ttt_jax.planning import plan as plan_lib
from ttt_jax.planning import report, sweep

FORMULA = f"""{formula.TEXT}
state * n      = bytes of parameters, moments and batch on a chip, times chips
least sent     = (n - 1) / n * (layers' weights * (2 + 2 + 4) + other parameters * (2 + 4)):
                 gathered in bfloat16 by the forward and the backward pass, reduced in float32
operations     = of the compiled step, loops by their trips, as a ratio to the formula's"""

# Topology, and the axes of FSDP on it, `outer` and `fsdp`; the latter is one ring.
GROWING = (
  ('v5p:2x2x4', 4, 4),
  ('v5p:4x4x4', 4, 16),
  ('v5p:4x8x8', 32, 8),
  ('v5p:8x8x8', 64, 8),
)
LARGE = (
  ('v5e:16x16', 16, 16, 'attention'),
  ('v5p:4x4x4', 4, 16, 'products'),
  ('v6e:16x16', 16, 16, 'gate'),
)
_LIBRARIES = ('jax', 'libtpu')


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  """Reads the command line."""
  parser = record.parser(__doc__, 'a tiny model on 4 and 8 chips')
  parser.add_argument(
    '--keep', default='~/.cache/ttt_jax/plans', help='folder of plans that were made before'
  )
  return parser.parse_args(arguments)


def settings(name: str, length: int, chips: int, outer: int, fsdp: int, remat: str):
  """A config with one row a chip and the state cut among all."""
  config = importlib.import_module(f'configs.{name}').get_config()
  config.data.row_length, config.data.batch_size = length, chips
  config.mesh.update({'data': 1, 'outer': outer, 'fsdp': fsdp})
  config.model.remat = remat
  return config_lib.from_config_dict(config)


def growing(topologies, name: str, length: int, make) -> list[plan_lib.Plan]:
  """Plans of one model on more and more chips."""
  plans = []
  for topology, outer, fsdp in topologies:
    config = settings(name, length, outer * fsdp, outer, fsdp, 'attention')
    plans.append(make(config, topology))
    print(f'  {topology}: {plans[-1].compile_seconds:.0f} s to compile', flush=True)
  return plans


def scaling(plans: list[plan_lib.Plan]) -> str:
  """A table in Markdown."""
  first = plans[0]
  lines = [
    '| chips | topology | state | state * n | temporaries | sent / least | operations |',
    '| --- | --- | --- | --- | --- | --- | --- |',
  ]
  for plan in plans:
    sent = sum(item.sent for item in plan.traffic) / plan.least_sent
    total = plan.state * plan.devices / (first.state * first.devices)
    lines.append(
      f'| {plan.devices} | {plan.topology} | {plan.state / 2**20:,.0f} MiB | {total:.3f} | '
      f'{plan.temporaries / 2**30:.2f} GiB ({plan.temporaries / first.temporaries:.3f}) | '
      f'{sent:.3f} | {plan.compiled / plan.needed:.3f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  """Prints the tables."""
  flags = parse_arguments()
  keep = pathlib.Path(flags.keep).expanduser() if flags.keep else None
  text, codes = (400, 256) if flags.quick else (151_665, 16_384)
  vocabulary = plan_lib.assumed(text, codes)
  rows = formula.typical(1024, 0.5)

  def make(config, topology):
    return sweep.kept(config, vocabulary, topology, rows, keep)

  results = record.begin(FORMULA, _LIBRARIES, note='compiled here, and nothing was run')
  if flags.quick:
    grown = growing((('v5e:2x2', 2, 2), ('v5e:2x4', 2, 4)), 'tiny', 256, make)
    large = []
  else:
    grown = growing(GROWING, 'ttt_1p5b', 4096, make)
    large = []
    for topology, outer, fsdp, remat in LARGE:
      large.append(make(settings('ttt_7b', 8192, outer * fsdp, outer, fsdp, remat), topology))
      print(f'  {topology}: {large[-1].compile_seconds:.0f} s to compile', flush=True)
  print()
  print(scaling(grown))
  if large:
    print()
    print(report.table(large))
  results |= {
    'growing': [plan.to_dict() for plan in grown],
    'large': [plan.to_dict() for plan in large],
  }
  record.save(results, flags.json)


if __name__ == '__main__':
  main()
