"""What each part of the method is worth: the same model, trained in other ways.

    python benchmarks/ablation.py [--folder DIR] [--only TEXT] [--seeds N] [--table]
                                  [--quick] [--json FILE] [--plots FOLDER]

Speaks, transcribes and answers in the town (data_pipelines/little_world/town.py), which an
independent recogniser judges. Every run has a folder, where it goes on if it was stopped, and
what came of it is written to --json as soon as it is there; a run that is in that file is not
done again. So it can be spread over hours and machines; where the command is given several
times at once, say once a core (`taskset -c 0 python ...`), each takes what nobody has begun.
The table is of what there is. Runs have equally many positions of rows, which is equal compute.
Documents in two streams are longer; of these there are runs with as many documents as one
stream has in its steps, too (`equal tokens`).

Left to right and diffused are the method's two halves, each for text and audio alike
(baselines.py). In the paper's own table (arXiv 2509.20072, 3 B parameters, word error rate on
AISHELL-1) these have 72.0 and 160.6 %, the whole method 13.7, without BANOM 21.4, without PPM
18.8, without SST 31.0.
"""

import bisect
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import ablation_plots
import baselines
import record

from configs import tiny
from data_pipelines import records
from data_pipelines.little_world import prepare
from data_pipelines.stream import plan as plan_lib
from data_pipelines.stream import rows
from ttt_jax import config as config_lib
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import evaluate, offline
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.training import train

FORMULA = """wer = edits / words of the references; of text as written, of speech as heard
likelihoods in nats a token of held-out records, of audio at most; mean and range over seeds"""
_LIBRARIES = ('jax', 'numpy')
SEEDS = 3
BLOCK = 13
# Blocks and steps beside the 13 and 4 of all else, for so many utterances. Who learnt whole
# spans is at a loss where a block ends; with the last one, an utterance is one block.
IN_BLOCKS = ((BLOCK, 1), (BLOCK, 2), (BLOCK, 8), (26, 8), (130, 40))
FEWER = 40
FLOORS = ('codec', 'original')
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
    tokens: whether it sees as many documents as it would in one stream, at whatever cost.
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
  Variant(
    'diffused',
    {'objective.sst_range': (0.05, 0.95), 'mask.block_size': BLOCK},  # SST cuts whole answers
    1,
    False,
    baselines.Diffused,
    baselines.DiffusedCandidate,
  ),
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


class Size(NamedTuple):
  """How much is done.

  Attributes:
    steps: of training.
    limit: items of each task; 0: all.
    world: what there is to learn.
  """

  steps: int
  limit: int
  world: prepare.Settings


WHOLE = Size(4800, 0, WORLD)
QUICK = Size(
  4,
  2,
  dataclasses.replace(WORLD, voices=1, strings=60, tests=4, codes=64, answer_copies=1),
)


def settings(variant: Variant, seed: int, data: pathlib.Path, steps: int) -> config_lib.Config:
  """The settings of a run."""
  c = tiny.get_config()
  c.seed = seed
  c.data.directory = str(data)
  c.data.row_length = 320  # the longest document in two streams has 290
  c.data.batch_size = 4
  # As the paper has it, whatever becomes the default of the quickstart.
  c.objective.layout, c.mask.audio = 'one_stream', 'span'
  c.objective.banom, c.objective.ppm, c.objective.sst = 0.3, 0.3, 0.5
  c.sampling.block_size = BLOCK
  c.sampling.steps_per_block = 4
  c.sampling.max_text, c.sampling.max_audio = 48, 130
  c.train.steps = steps
  c.train.checkpoint_every = max(1, steps // 10)
  c.train.keep = 1
  for key, value in variant.changes.items():
    c.update_from_flattened_dict({key: value})
  config = config_lib.from_config_dict(c)
  return scaled(config, records.Source(data, 'train')) if variant.tokens else config


def scaled(config: config_lib.Config, source: records.Source) -> config_lib.Config:
  """With more steps, in which as many documents come as they would in one stream."""
  changes = {'layout': 'one_stream', 'copies': 1}
  objectives = config.objective, dataclasses.replace(config.objective, **changes)
  ours, theirs = (
    rows.Rows([source], config.data, config.mask, objective, config.seed).plan
    for objective in objectives
  )

  def seen(plan: plan_lib.Plan, steps: int) -> int:
    number, row = plan.locate(steps * config.data.batch_size)
    window = plan.window(number)
    return window.first + int(window.offsets[row])

  steps = config.train.steps
  most = range(steps * (1 + 2 * config.objective.copies))
  enough = bisect.bisect_left(most, seen(theirs, steps), key=functools.partial(seen, ours))
  return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=enough))


def suite(variant: Variant, data: pathlib.Path, limit: int) -> suite_lib.Suite:
  """How a run is judged."""
  text, speech = suite_lib.Metric('wer'), suite_lib.Metric('wer', of='speech')
  metrics = {'speak': (speech,), 'transcribe': (text,), 'answer': (text, speech)}
  common = {'data': (str(data),), 'recogniser': prepare.recogniser(data)}
  tasks = [
    suite_lib.Task(name, metrics=chosen, where={'task': name}, limit=limit, **common)
    for name, chosen in metrics.items()
  ]
  if variant.candidate is not baselines.LeftToRightCandidate:
    for block, steps in IN_BLOCKS:
      changes = {'sampling': {'block_size': block, 'steps_per_block': steps}}
      changes |= {'where': {'task': 'speak'}, 'limit': limit or FEWER}
      name = f'speak_{steps}_of_{block}'
      tasks.append(suite_lib.Task(name, metrics=(speech,), **changes, **common))
  if variant.kind is rows.Rows:  # likelihoods are of what the method trains
    tasks.append(suite_lib.Task('all', (str(data),), (suite_lib.Metric('likelihood'),)))
  return suite_lib.Suite(tuple(tasks))


def run(variant: Variant, config: config_lib.Config, folder: pathlib.Path, limit: int) -> dict:
  """Trains in a folder of its own, and judges; what came of it."""
  data, place = folder / 'data', folder / _name(variant, config.seed)
  train.train(config, place / 'run', kind=variant.kind)
  evaluation = evaluate.Evaluation(suite(variant, data, limit), folder / evaluate.ITEMS)
  load = functools.partial(variant.candidate.load, str(place / 'run'), variant.name)
  judged = evaluation.judge([load], steps=config.train.steps)
  offline.write(judged, place)
  return {'steps': config.train.steps, 'figures': figures(judged.results)}


def figures(results: dict) -> dict[str, float]:
  """The figures of a run, by name."""
  out = {}
  for task, about in results['tasks'].items():
    for metric, found in about['figures'].items():
      for one in found['checkpoints'].values():
        if one is not None:
          out[f'{task} {metric}'] = one['value']
      for floor in FLOORS:
        if floor in found:
          out[f'{task} {metric} {floor}'] = found[floor]
  return out


def _name(variant: Variant, seed: int) -> str:
  return f'{variant.name}-{seed}'.replace(', ', '-').replace(' ', '_')


def _identity(variant: Variant, config: config_lib.Config, size: Size) -> str:
  """Of all that decides what comes of a run."""
  about = config.to_dict()
  del about['data']['directory']
  asked = suite(variant, pathlib.Path('data'), size.limit).to_dict()
  decides = [about, dataclasses.asdict(size.world), variant.kind.__name__, asked]
  return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(path: pathlib.Path, wait: bool) -> Iterator[bool]:
  """Whether no other process is within, on this path; waits until it is so if told to."""
  with path.with_suffix('.lock').open('w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      yield False
    else:
      yield True


class Ledger:
  """Runs that are done, by name; in a file that several processes write."""

  def __init__(self, path: pathlib.Path, header: dict):
    """Takes the file, which need not be there, and what it says beside the runs.

    Raises:
      ValueError: the file is of runs of another size.
    """
    self._path, self._header = path, header
    if path.exists():
      known = json.loads(path.read_text(encoding='utf-8'))['where']['steps']
      if known != header['where']['steps']:
        raise ValueError(f'{path}: has runs of {known} steps; write these to another file')

  def read(self) -> dict[str, dict]:
    """The runs."""
    if not self._path.exists():
      return {}
    return json.loads(self._path.read_text(encoding='utf-8'))['runs']

  def add(self, name: str, made: dict) -> None:
    """Writes a run beside the others."""
    with _alone(self._path, wait=True):
      runs = dict(sorted((self.read() | {name: made}).items()))
      text = json.dumps(self._header | {'runs': runs}, indent=1) + '\n'
      fresh = self._path.with_suffix('.new')
      fresh.write_text(text, encoding='utf-8')
      os.replace(fresh, self._path)


def show(found: dict[str, list[dict[str, float]]]) -> None:
  """Prints tables of what there is, for people and for Markdown."""
  every = dict.fromkeys(name for runs in found.values() for run in runs for name in run)
  floors = {name: runs[0][name] for runs in found.values() for name in every if name in runs[0]}
  print(', '.join(f'{n} {v:.1%}' for n, v in floors.items() if n.endswith(FLOORS)))
  rates = [name for name in every if 'wer' in name and not name.endswith(FLOORS)]
  _table('word error rate', [n for n in rates if not n.startswith('speak_')], found, '.1%')
  _table('of speak, by steps', [n for n in rates if n.startswith('speak_')], found, '.1%')
  _table('likelihood', [n for n in every if n.startswith('all')], found, '.3f')


def _table(title: str, names: list[str], found: dict, form: str) -> None:
  print(f'\n| {title} | runs | ' + ' | '.join(names) + ' |')
  print('| --- ' * (len(names) + 2) + '|')
  for variant, runs in found.items():
    cells = []
    for name in names:
      values = [run[name] for run in runs if name in run]
      cell = format(statistics.mean(values), form) if values else ''
      if len(values) > 1:
        cell += f' ({min(values):{form}} to {max(values):{form}})'
      cells.append(cell)
    if any(cells):
      print(f'| {variant} | {len(runs)} | ' + ' | '.join(cells) + ' |', flush=True)


def gather(
  ledger: Ledger, folder: pathlib.Path, size: Size, only: str, seeds: int, runs: bool
) -> dict[str, list[dict[str, float]]]:
  """The figures of all runs that are done, by variant.

  Args:
    ledger: of what was done before.
    folder: of the runs.
    size: of each.
    only: what the names of variants hold.
    seeds: at most so many runs of each variant.
    runs: whether to do what nobody has done or begun; first one run of each variant.
  """
  found: dict[str, list[dict[str, float]]] = {variant.name: [] for variant in VARIANTS}
  for seed in range(seeds):
    for variant in VARIANTS:
      if seed >= variant.seeds or only not in variant.name:
        continue
      name, config = _name(variant, seed), settings(variant, seed, folder / 'data', size.steps)
      identity = _identity(variant, config, size)
      with _alone(folder / name, wait=False) as mine:
        known = ledger.read().get(name, {})
        if known.get('identity') != identity and mine and runs:
          known = {'identity': identity, **run(variant, config, folder, size.limit)}
          ledger.add(name, known)
      if known.get('identity') == identity:
        found[variant.name].append(known['figures'])
  return {name: figures for name, figures in found.items() if figures}


def main():
  """Runs what is asked for, and prints the table."""
  parser = record.parser(__doc__, 'a few steps of everything, to see that it works')
  parser.add_argument('--folder', default='runs/ablation', help='where runs are kept')
  parser.add_argument('--only', default='', help='variants whose names hold this')
  parser.add_argument('--seeds', type=int, default=SEEDS, help='at most so many runs of each')
  parser.add_argument('--table', action='store_true', help='runs nothing')
  parser.add_argument('--plots', metavar='FOLDER', help='where ablation*.svg are drawn')
  flags = parser.parse_args()
  if not any(flags.only in variant.name for variant in VARIANTS):
    parser.error(f'--only={flags.only}: in no name of {", ".join(v.name for v in VARIANTS)}')
  folder = pathlib.Path(flags.folder + ('-quick' if flags.quick else ''))
  size = QUICK if flags.quick else WHOLE
  header = record.begin(FORMULA, _LIBRARIES, steps=size.steps, block=BLOCK)
  try:
    ledger = Ledger(pathlib.Path(flags.json or folder / 'runs.json'), header)
  except (KeyError, TypeError, ValueError) as error:
    parser.error(f'--json={flags.json}: no file of such runs: {error}')
  folder.mkdir(parents=True, exist_ok=True)
  with _alone(folder / 'data', wait=True):
    if not (folder / 'data').exists():
      prepare.prepare(folder / 'data', size.world)
    if not flags.table:  # what is heard of references is kept for all runs
      whole = suite(VARIANTS[0], folder / 'data', size.limit)
      evaluate.Evaluation(whole, folder / evaluate.ITEMS).judge([])
  found = gather(ledger, folder, size, flags.only, flags.seeds, not flags.table)
  show(found)
  if flags.plots:
    for name, drawn in (
      ('ablation', ablation_plots.dots(found)),
      ('ablation_passes', ablation_plots.against_passes(found)),
    ):
      pathlib.Path(flags.plots, f'{name}.svg').write_text(drawn, encoding='utf-8')


if __name__ == '__main__':
  main()
