"""What the final projection and its loss cost: all logits, by chunks, and targets alone.

    python benchmarks/cross_entropy.py [--quick] [--json FILE] [--data DIR]

Value and gradient of the loss by hidden states and head, three ways: `naive` makes the
logits of all positions; `chunked` is ops/cross_entropy.py where every position is a target;
`targets` is the same where as many are as in the rows of a data set. Then the quickstart's
whole training step, with the loss of all logits and with the project's.
"""

import argparse
import dataclasses
import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import record
from flax import linen as nn

from configs import tiny
from data_pipelines import records
from data_pipelines.stream import loader, rows
from ttt_jax import config as config_lib
from ttt_jax.model import transformer
from ttt_jax.ops import cross_entropy
from ttt_jax.training import optimizer
from ttt_jax.training import step as step_lib

FORMULA = 'temporaries by compiled memory analysis; times are medians, as ratios to naive'
# Positions, width, ids and dtype: what is only compiled, and what is run as well.
COMPILED = ((8192, 3584, 168_192, 'bfloat16'), (8192, 896, 152_064, 'bfloat16'))
TIMED = ((4096, 128, 1152, 'float32'), (2048, 256, 32_768, 'float32'))
CHUNKS = (512, 1024)
_LIBRARIES = ('jax', 'jaxlib', 'flax', 'numpy')


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  """Reads the command line."""
  parser = record.parser(__doc__, 'fewer sizes and repetitions')
  parser.add_argument(
    '--data', metavar='DIR', default='runs/quickstart/data', help="the quickstart's data set"
  )
  return parser.parse_args(arguments)


def naive(hidden, head, targets, weights, size: int):
  """Objective, cross-entropies and correctness from the logits of all positions."""
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  logits = dot('BLD,VD->BLV', hidden, head.astype(hidden.dtype))
  logits = jnp.where(jnp.arange(len(head)) < size, logits, -jnp.inf)
  right = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
  loss = jax.nn.logsumexp(logits, -1) - right
  correct = logits.max(-1) == right
  return jnp.sum(weights * loss), cross_entropy.Scores(loss, correct)


def medians(functions: dict, repetitions: int) -> dict[str, float]:
  """Seconds of each function, which take turns: the machine may be shared."""
  seconds = {name: [] for name in functions}
  for _ in range(repetitions):
    for name, function in functions.items():
      begin = time.perf_counter()
      jax.block_until_ready(function())
      seconds[name].append(time.perf_counter() - begin)
  return {name: statistics.median(times) for name, times in seconds.items()}


def of_loss(shape: tuple, share: float, repetitions: int) -> dict:
  """Temporaries of the ways to take the loss; with `repetitions`, ratios of times too."""
  positions, width, ids, dtype = shape
  size = ids - 64
  kinds = {'hidden': (1, positions, width), 'targets': (1, positions), 'head': (ids, width)}
  abstract = (
    jax.ShapeDtypeStruct(kinds['hidden'], dtype),
    jax.ShapeDtypeStruct(kinds['head'], jnp.float32),
    jax.ShapeDtypeStruct(kinds['targets'], jnp.int32),
    jax.ShapeDtypeStruct(kinds['targets'], jnp.float32),
  )
  ways = {'naive': functools.partial(naive, size=size)}
  for chunk in CHUNKS:
    options = cross_entropy.Options((0, size), chunk=chunk)
    ways[f'chunked {chunk}'] = functools.partial(_chunked, options=options)
  compiled = {
    name: jax.jit(jax.value_and_grad(way, (0, 1), has_aux=True)).lower(*abstract).compile()
    for name, way in ways.items()
  }
  found = {
    name: {'temporaries_mib': step.memory_analysis().temp_size_in_bytes / 2**20}
    for name, step in compiled.items()
  }
  if repetitions:
    rng = np.random.default_rng(0)
    hidden, head = (jnp.array(rng.normal(size=a.shape), a.dtype) for a in abstract[:2])
    targets = jnp.array(rng.integers(0, size, kinds['targets']), jnp.int32)
    every = jnp.ones(kinds['targets'], jnp.float32)
    some = jnp.array(rng.random(kinds['targets']) < share, jnp.float32)
    calls = {}
    for name, step in compiled.items():
      calls[name] = functools.partial(step, hidden, head, targets, every)
      if name != 'naive':
        name = name.replace('chunked', 'targets')
        calls[name] = functools.partial(step, hidden, head, targets, some)
    seconds = medians(calls, repetitions)
    for name, value in seconds.items():
      found.setdefault(name, {})['time_ratio'] = value / seconds['naive']
  return {'positions': positions, 'width': width, 'ids': ids, 'dtype': dtype, 'ways': found}


def _chunked(hidden, head, targets, weights, options):
  return cross_entropy.cross_entropy(hidden, head, targets, weights, options)


def shares(source: records.Source, config: config_lib.Config, number: int) -> dict[str, float]:
  """Targets of the first rows, as a share of their positions.

  `drawn` is the mean share, and `drawn_most` that of the fullest row; `possible_most` is the
  share of positions of a row that some draw would make targets: a bound that is known before.
  """
  all_masked = dataclasses.replace(config.objective, banom=0.0, ppm=0.0, epsilon=1 - 1e-9)
  drawn, possible = (
    [(stream[index].weights > 0).mean() for index in range(number)]
    for stream in (
      rows.Rows([source], config.data, config.mask, objective, config.seed)
      for objective in (config.objective, all_masked)
    )
  )
  return {
    'rows': number,
    'drawn': float(np.mean(drawn)),
    'drawn_most': float(np.max(drawn)),
    'possible': float(np.mean(possible)),
    'possible_most': float(np.max(possible)),
  }


def of_step(
  source: records.Source, config: config_lib.Config, repetitions: int
) -> dict[str, float]:
  """The quickstart's training step with the project's loss, as a ratio to all logits."""
  vocabulary = source.assets.vocabulary
  stream = rows.Rows([source], config.data, config.mask, config.objective, config.seed)
  batches = list(loader.batches(stream, config.data.batch_size, 4))
  model = transformer.Transformer(config.model, vocabulary.size)
  rule = optimizer.make(config.optimizer, config.train.steps)
  ids = jnp.zeros((1, 2), jnp.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])

  def all_logits(params, batch):
    view = batch.inputs, batch.positions, batch.kv_start, batch.kv_end
    hidden = model.apply({'params': params}, *view, method='hidden')
    head = model.apply({'params': params}, method='output_layer')
    total, scores = naive(hidden, head, batch.targets, batch.weights, vocabulary.size)
    return total / jnp.sum(batch.normalizer), scores

  def ours(params, batch):
    return step_lib.loss(model, vocabulary, config.objective, params, batch)

  def run(step, states, batch):
    states[:] = step(*states, batch)
    return states

  calls = {}
  for name, loss in {'all logits': all_logits, 'ours': ours}.items():
    step = jax.jit(functools.partial(_step, loss, rule))
    states, turns = [params, rule.init(params)], iter(batches * repetitions)
    run(step, states, batches[0])
    calls[name] = lambda step=step, states=states, turns=turns: run(step, states, next(turns))
  seconds = medians(calls, repetitions)
  return {
    'seconds': seconds,
    'ratio': seconds['ours'] / seconds['all logits'],
  }


def _step(loss, rule, params, moments, batch):
  gradient, _ = jax.grad(loss, has_aux=True)(params, batch)
  updates, moments = rule.update(gradient, moments, params)
  return optax.apply_updates(params, updates), moments


def _table(results: list[dict]) -> str:
  lines = [
    '| positions x width x ids | way | temporaries MiB | time / naive |',
    '| --- | --- | --- | --- |',
  ]
  for result in results:
    shape = f'{result["positions"]:,} x {result["width"]:,} x {result["ids"]:,}'
    for way, found in result['ways'].items():
      memory = f'{found["temporaries_mib"]:,.1f}' if 'temporaries_mib' in found else ''
      ratio = f'{found["time_ratio"]:.2f}' if 'time_ratio' in found else ''
      lines.append(f'| {shape}, {result["dtype"]} | {way} | {memory} | {ratio} |')
  return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
  """Runs the benchmark and prints its tables."""
  options = parse_arguments(arguments)
  found = record.begin(FORMULA, _LIBRARIES, backend=jax.default_backend())
  settings = tiny.get_config()
  settings.data.directory = options.data
  config = config_lib.from_config_dict(settings)
  source = records.Source(options.data, config.data.split)
  share = shares(source, config, 100 if options.quick else 400)
  print('targets a position: ' + ', '.join(f'{k} {v:.3g}' for k, v in share.items()))
  repetitions = 7 if options.quick else 25
  results = [of_loss(shape, share['drawn'], repetitions) for shape in TIMED]
  results += [
    of_loss(shape, share['drawn'], 0) for shape in COMPILED[: 1 if options.quick else None]
  ]
  print(_table(results), flush=True)
  step = of_step(source, config, repetitions)
  print(f'training step of configs/tiny.py: {step["ratio"]:.3f} of all logits')
  record.save(found | {'targets': share, 'loss': results, 'step': step}, options.json)


if __name__ == '__main__':
  main()
