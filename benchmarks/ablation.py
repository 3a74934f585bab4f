"""What each part of the method is worth: the same model, trained in other ways.

    python benchmarks/ablation.py [--folder DIR] [--only TEXT] [--seeds N] [--quick]
                                  [--json FILE]

Speaks, transcribes and answers in the town (data_pipelines/little_world/town.py), which an
independent recogniser judges. Every run is a folder, and one that is done is not done again, so
that a few may be run at a time; the table is of what there is. Runs have equally many positions
of rows, which is equal compute. Documents in two streams are longer; of these there are runs
with as many documents as the others have, too (`equal tokens`).

Left to right and diffused are the method's two halves, each for text and audio alike
(baselines.py). In the paper's own table (arXiv 2509.20072, 3 B parameters, word error rate on
AISHELL-1) these have 72.0 and 160.6 %, the whole method 13.7, without BANOM 21.4, without PPM
18.8, without SST 31.0.
"""

import dataclasses
import functools
import json
import pathlib
import statistics
from typing import Any, NamedTuple

import baselines
import record

from configs import tiny
from data_pipelines import records
from data_pipelines.little_world import prepare
from data_pipelines.stream import rows
from ttt_jax import config as config_lib
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import evaluate, offline
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.training import train

FORMULA = """wer = edits / words of the references; of text as written, of speech as heard
likelihoods in nats a token of held-out records, of audio at most; mean and range over seeds"""
_LIBRARIES = ('jax', 'numpy')
STEPS, QUICK_STEPS = 2400, 4
SEEDS = 3
BLOCK = 13
WORLD = prepare.Settings(
  **{'world': 'town', 'voices': 2, 'strings': 4000, 'tests': 40, 'codes': 512, 'frames': 4},
  **{'seed': 0, 'answer_copies': 8, 'ask_every': 4, 'tokenizer_size': 1024},
)
_TWO = {'objective.layout': 'two_stream', 'objective.banom': 0.0, 'objective.ppm': 0.0}
_SPANS, _BLOCKS = {'mask.audio': 'span'}, {'mask.audio': 'block', 'mask.block_size': BLOCK}
_NO_SST = {'objective.sst': 0.0}


class Variant(NamedTuple):
  """One way to train.

  Attributes:
    name: of it.
    changes: of the paper's settings, by keys of the config.
    seeds: how many runs it gets.
    tokens: whether it sees as many documents as the paper's method, at whatever cost.
    kind: of rows.
    candidate: how it answers.
  """

  name: str
  changes: dict[str, Any]
  seeds: int = 1
  tokens: bool = False
  kind: type[rows.Rows] = rows.Rows
  candidate: type[candidate_lib.Candidate] = candidate_lib.Candidate


VARIANTS = (
  Variant('method', {}, SEEDS),
  Variant(
    'left to right',
    _NO_SST,
    SEEDS,
    False,
    baselines.LeftToRight,
    baselines.LeftToRightCandidate,
  ),
  Variant('diffused', _NO_SST, SEEDS, False, baselines.Diffused, baselines.DiffusedCandidate),
  Variant('two streams, blocks', _TWO | _BLOCKS | _NO_SST, SEEDS),
  Variant('method without BANOM', {'objective.banom': 0.0}),
  Variant('method without PPM', {'objective.ppm': 0.0}),
  Variant('method without SST', _NO_SST),
  Variant('two streams, spans', _TWO | _SPANS | _NO_SST),
  Variant('two streams, spans, SST', _TWO | _SPANS),
  Variant('two streams, blocks, SST', _TWO | _BLOCKS),
  Variant('two streams, blocks, equal tokens', _TWO | _BLOCKS | _NO_SST, tokens=True),
  Variant('two streams, spans, equal tokens', _TWO | _SPANS | _NO_SST, tokens=True),
)


def settings(variant: Variant, seed: int, data: pathlib.Path, steps: int) -> config_lib.Config:
  """The settings of a run."""
  c = tiny.get_config()
  c.seed = seed
  c.data.directory = str(data)
  c.data.row_length = 512
  c.data.batch_size = 8
  c.model.layers, c.model.width, c.model.mlp_width = 6, 160, 448
  c.model.head_width = 40
  c.objective.banom = 0.3  # as the authors have it
  c.sampling.block_size = BLOCK
  c.sampling.steps_per_block = 4
  c.sampling.max_text, c.sampling.max_audio = 48, 130
  c.train.steps = steps
  c.train.checkpoint_every = max(1, steps // 6)
  for key, value in variant.changes.items():
    c.update_from_flattened_dict({key: value})
  return config_lib.from_config_dict(c)


def scaled(config: config_lib.Config, source: records.Source) -> config_lib.Config:
  """With more steps, in which as many documents come as they would in one stream."""
  changes = {'layout': 'one_stream', 'copies': 1}
  plain = dataclasses.replace(
    config, objective=dataclasses.replace(config.objective, **changes)
  )
  ours, theirs = (
    rows.Rows([source], c.data, c.mask, c.objective, 0).plan.decks[0].mean
    for c in (config, plain)
  )
  steps = round(config.train.steps * ours / theirs)
  return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))


def suite(variant: Variant, data: pathlib.Path, limit: int) -> suite_lib.Suite:
  """How a run is judged."""
  text, speech = suite_lib.Metric('wer'), suite_lib.Metric('wer', of='speech')
  metrics = {'speak': (speech,), 'transcribe': (text,), 'answer': (text, speech)}
  tasks = [
    suite_lib.Task(name, (str(data),), chosen, where={'task': name}, limit=limit)
    for name, chosen in metrics.items()
  ]
  if variant.kind is rows.Rows:  # likelihoods are of what the method trains
    tasks.append(suite_lib.Task('all', (str(data),), (suite_lib.Metric('likelihood'),)))
  return suite_lib.Suite(tuple(tasks))


def run(variant: Variant, seed: int, folder: pathlib.Path, steps: int, limit: int) -> dict:
  """Trains and judges, or reads what came of it before."""
  name = f'{variant.name}-{seed}'.replace(', ', '-').replace(' ', '_')
  data, place = folder / 'data', folder / name
  results = place / evaluate.RESULTS
  if results.exists():
    return json.loads(results.read_text(encoding='utf-8'))
  config = settings(variant, seed, data, steps)
  source = records.Source(data, 'train')
  if variant.tokens:
    config = scaled(config, source)
  train.train(config, place / 'run', kind=variant.kind)
  # What is heard of the references is kept for all runs.
  evaluation = evaluate.Evaluation(suite(variant, data, limit), folder / evaluate.ITEMS)
  load = functools.partial(variant.candidate.load, str(place / 'run'), variant.name)
  judged = evaluation.judge([load], steps=config.train.steps)
  offline.write(judged, place)
  return judged.results


def figures(results: dict) -> dict[str, float]:
  """The figures of a run that the table shows, by name."""
  out = {}
  for task, about in results['tasks'].items():
    for metric, found in about['figures'].items():
      for one in found['checkpoints'].values():
        if one is not None:
          out[f'{task} {metric}'] = one['value']
  return out


def show(found: dict[str, list[dict[str, float]]]) -> None:
  """Prints a table of what there is."""
  names = list(dict.fromkeys(name for runs in found.values() for run in runs for name in run))
  print('| | runs | ' + ' | '.join(names) + ' |')
  print('| --- ' * (len(names) + 2) + '|')
  for variant, runs in found.items():
    cells = []
    for name in names:
      values = [run[name] for run in runs if name in run]
      cell = f'{statistics.mean(values):.3f}' if values else ''
      if len(values) > 1:
        cell += f' ({min(values):.3f} to {max(values):.3f})'
      cells.append(cell)
    print(f'| {variant} | {len(runs)} | ' + ' | '.join(cells) + ' |', flush=True)


def main():
  """Runs what is asked for, and prints the table."""
  parser = record.parser(__doc__, 'a few steps of everything, to see that it works')
  parser.add_argument('--folder', default='runs/ablation', help='where runs are kept')
  parser.add_argument('--only', default='', help='variants whose names hold this')
  parser.add_argument('--seeds', type=int, default=SEEDS, help='at most so many runs of each')
  arguments = parser.parse_args()
  folder = pathlib.Path(arguments.folder + ('-quick' if arguments.quick else ''))
  steps, limit, world = STEPS, 100, WORLD
  if arguments.quick:
    steps, limit = QUICK_STEPS, 2
    world = dataclasses.replace(WORLD, voices=1, strings=60, tests=4, codes=64, answer_copies=1)
  results = record.begin(FORMULA, _LIBRARIES, steps=steps, block=BLOCK)
  if not (folder / 'data').exists():
    prepare.prepare(folder / 'data', world)
  # First one run of each, then the second of those that get more.
  found: dict[str, list[dict[str, float]]] = {variant.name: [] for variant in VARIANTS}
  for seed in range(arguments.seeds):
    for variant in VARIANTS:
      if seed < variant.seeds and arguments.only in variant.name:
        found[variant.name].append(figures(run(variant, seed, folder, steps, limit)))
  show({name: runs for name, runs in found.items() if runs})
  record.save(results | {'variants': found}, arguments.json)


if __name__ == '__main__':
  main()
