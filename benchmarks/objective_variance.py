"""Variance of the diffusion's loss and gradient, by schedule, times and layout.

    python benchmarks/objective_variance.py [--checkpoint RUN] [--data DATA] [--quick]
                                            [--json FILE]

The same records of a data set, under many draws of times and masks, at the parameters of a run
of the quickstart; audio's part of the objective alone. All settings but those with a range of
times estimate the same bound in one stream, so that the one with less noise at equal work is
better. `independent` times are drawn for each record by itself; the others are those of
training.
"""

import dataclasses
import pathlib

import jax
import numpy as np
import record
from jax import flatten_util

from data_pipelines import records
from data_pipelines.stream import rows
from ttt_jax import batch as batch_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax.diffusion import corruption, laid, two_stream
from ttt_jax.sampling import session as session_lib
from ttt_jax.training import step

FORMULA = """spread = standard deviation of the loss / its mean, over draws
noise = trace of the covariance of the gradient / square of its mean's length,
        the latter as the mean product of the gradients of two different draws;
        +- its standard error, by leaving out one draw at a time
work = positions of the rows, paddings left out, beside one stream's
noise * work = what it takes to have equal noise: the lower the better"""
_GOLDEN = (5**0.5 - 1) / 2
_BLOCK = 8
_LIBRARIES = ('jax', 'numpy')

# The paper's objective, without its three strategies, whatever the run was trained by.
PLAIN = {
  **{'layout': 'one_stream', 'copies': 1, 'schedule': 'linear', 'time_range': (0.0, 1.0)},
  **{'banom': 0.0, 'ppm': 0.0, 'condition_dropout': 0.0, 'normalization': 'document'},
}

_BLOCKS = {'layout': 'two_stream', 'audio': 'block'}

# What is changed of it.
SETTINGS = {
  'linear': {},
  'linear, independent times': {},
  'cosine': {'schedule': 'cosine'},
  'polynomial 2': {'schedule': 'polynomial', 'power': 2.0},
  'polynomial 0.5': {'schedule': 'polynomial', 'power': 0.5},
  'linear, times 0.1-1': {'time_range': (0.1, 1.0)},
  'linear, times 0.3-0.8': {'time_range': (0.3, 0.8)},
  'two streams, spans': {'layout': 'two_stream'},
  'two streams, spans, independent times': {'layout': 'two_stream'},
  'two streams, spans, 2 copies': {'layout': 'two_stream', 'copies': 2},
  'two streams, spans, 4 copies': {'layout': 'two_stream', 'copies': 4},
  'two streams, blocks': _BLOCKS,
  'two streams, blocks, independent times': _BLOCKS,
  'two streams, blocks, cosine': _BLOCKS | {'schedule': 'cosine'},
  'two streams, blocks, polynomial 2': _BLOCKS | {'schedule': 'polynomial', 'power': 2.0},
  'two streams, blocks, polynomial 0.5': _BLOCKS | {'schedule': 'polynomial', 'power': 0.5},
  'two streams, blocks, 2 copies': _BLOCKS | {'copies': 2},
  'two streams, blocks, times 0.3-0.8': _BLOCKS | {'time_range': (0.3, 0.8)},
}


def parse_arguments(arguments: list[str] | None = None):
  """Reads the command line."""
  parser = record.parser(__doc__, 'a quarter of the records and of the draws')
  parser.add_argument('--checkpoint', default='runs/quickstart/run', help='folder of the run')
  parser.add_argument('--data', default='runs/quickstart/data', help='its data set')
  return parser.parse_args(arguments)


def changed(config: config_lib.Config, changes: dict) -> config_lib.Config:
  """The run's settings with those of one line."""
  changes = PLAIN | changes
  audio = changes.pop('audio', 'span')
  return dataclasses.replace(
    config,
    objective=dataclasses.replace(config.objective, **changes),
    mask=dataclasses.replace(config.mask, audio=audio, block_size=_BLOCK),
  )


def draw(
  documents: list[chat.Document], config: config_lib.Config, vocabulary, times, rng
) -> list[laid.Laid]:
  """The documents, masked."""
  out, objective = [], config.objective
  for document, time in zip(documents, times):
    size = len(document.tokens)
    if objective.streams == 2:
      block = config.mask.group_size
      size = two_stream.copied_lengths(document, block, vocabulary)[0] * objective.copies
    draws = corruption.Draws(time, rng.random(size), False, 0, False)
    if objective.streams == 2:
      made = two_stream.corrupt(document, draws, config.mask, objective, vocabulary)
    else:
      corrupted = corruption.corrupt(document, draws, objective, vocabulary)
      made = laid.one_stream(document, corrupted, config.mask, vocabulary)
    audio = made.weights * vocabulary.is_audio(made.targets)
    out.append(made._replace(weights=audio))
  return out


def packed(documents: list[laid.Laid], objective, rows_wanted: int, length: int):
  """A batch of so many rows, filled one after the other."""
  parts, room = [[]], length
  for one in documents:
    if len(one.inputs) > room:
      parts.append([])
      room = length
    parts[-1].append(one)
    room -= len(one.inputs)
  made = [rows.pack(part, length, objective) for part in parts]
  made += [batch_lib.empty(length, objective.streams)] * (rows_wanted - len(made))
  return batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))


def measure(session, documents, name: str, draws: int) -> dict[str, float]:
  """One line of the table."""
  config = changed(session.config, SETTINGS[name])
  vocabulary, objective = session.assets.vocabulary, config.objective
  flat, restore = flatten_util.ravel_pytree(session.params)

  @jax.jit
  def differentiate(params, batch):
    def of(params):
      return step.loss(session.model, vocabulary, objective, restore(params), batch)[0]

    return jax.value_and_grad(of)(params)

  losses, gradients, most = [], [], 0
  for number in range(draws):
    rng = np.random.default_rng([number, 7])
    times = (rng.random() + np.arange(len(documents)) * _GOLDEN) % 1
    if 'independent' in name:
      times = rng.random(len(documents))
    made = draw(documents, config, vocabulary, times, rng)
    size = sum(len(one.inputs) for one in made)
    length = 512
    most = most or -(-size // length) + 4
    loss, gradient = differentiate(flat, packed(made, objective, most, length))
    losses.append(float(loss))
    gradients.append(np.asarray(gradient))
  products = np.array([[np.dot(a, b) for a in gradients] for b in gradients], np.float64)
  without = [np.delete(np.delete(products, i, 0), i, 1) for i in range(draws)]
  spared = np.array([noise(rest) for rest in without])
  return {
    'loss': float(np.mean(losses)),
    'spread': float(np.std(losses, ddof=1) / np.mean(losses)),
    'noise': noise(products),
    'error': float(np.sqrt((draws - 1) * np.mean((spared - spared.mean()) ** 2))),
    'positions': size,
  }


def noise(products: np.ndarray) -> float:
  """Of gradients, from the products [N, N] of any two."""
  count, trace = len(products), np.trace(products)
  mean_square = (products.sum() - trace) / (count * (count - 1))
  return float((trace / count - mean_square) / mean_square)


def main():
  """Measures, and prints a table."""
  arguments = parse_arguments()
  session = session_lib.Session.load(pathlib.Path(arguments.checkpoint))
  source = records.Source(arguments.data, 'train')
  count, draws = (16, 8) if arguments.quick else (64, 32)
  rng = np.random.default_rng(0)
  documents = [source.documents[int(i)] for i in rng.permutation(len(source))]
  documents = [d for d in documents if d.responses.any()][:count]
  results = record.begin(FORMULA, _LIBRARIES, records=count, draws=draws, block=_BLOCK)
  print(
    f'{"":38} {"loss":>6} {"spread":>7} {"noise":>7} {"+-":>6} {"work":>5} {"noise * work":>13}'
  )
  found = {}
  for name in SETTINGS:
    found[name] = one = measure(session, documents, name, draws)
    work = one['positions'] / found['linear']['positions']
    figures = f'{one["loss"]:6.3f} {one["spread"]:7.3f} {one["noise"]:7.3f} {one["error"]:6.3f}'
    print(f'{name:38} {figures} {work:5.2f} {one["noise"] * work:13.3f}', flush=True)
  record.save(results | {'settings': found}, arguments.json)


if __name__ == '__main__':
  main()
