"""What saving checkpoints costs the steps of a run, and what trusting them costs.

    python benchmarks/saving.py [--quick] [--json FILE] [--steps N] [--width N]

Trains a model without saving, then saves once in the midst of the same number of steps, as the
loop does it: the host waits until the state is copied, and files are written, hashed and
renamed beside the next steps. What one save costs is the difference of the two times; the
interval at which that is 2 % follows. Times of hashing and of verifying are those of one
process, with the files in the page cache.
"""

import math
import pathlib
import tempfile
import threading
import time

import jax
import numpy as np
import record

from configs import base
from ttt_jax import batch as batch_lib
from ttt_jax import checkpoint, hashes, sharding
from ttt_jax import config as config_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.training import program, saver, state

FORMULA = """cost of a save = seconds of N steps with one save - seconds of N steps, medians
blocked = seconds in which the host waits at a save; behind = from its beginning until the files
have their name; beside = from its beginning to the end of the steps beside it
interval for 2 % = cost / 0.02 seconds"""


def parse_arguments(arguments: list[str] | None = None):
  """Reads the command line."""
  parser = record.parser(__doc__, 'a tiny model, and one round')
  parser.add_argument('--steps', type=int, default=24, help='in a round')
  parser.add_argument('--width', type=int, default=384, help='of the model')
  parser.add_argument('--rounds', type=int, default=3)
  return parser.parse_args(arguments)


def settings(width: int, layers: int) -> config_lib.Config:
  """A model in float32 on one device."""
  c = base.get_config()
  c.model.update({'width': width, 'layers': layers, 'heads': width // 32, 'kv_heads': 2})
  c.model.update({'head_width': 32, 'mlp_width': 3 * width, 'dtype': 'float32'})
  c.model.update({'remat': 'none', 'attention': 'dense'})
  c.data.update({'row_length': 256, 'batch_size': 2})
  c.mesh.data = 1
  return config_lib.from_config_dict(c)


def vocabulary(size: int) -> vocabulary_lib.Vocabulary:
  """Ids of which the upper half are codes; nothing is said with them."""
  start = size // 2
  return vocabulary_lib.Vocabulary(
    size=size,
    audio_start=start,
    codebook_start=start,
    codebook_size=size - start - 4,
    turn_start=1,
    turn_end=2,
    begin_audio=3,
    begin_last=4,
    end_prompt=size - 4,
    end_inner=size - 3,
    end_last=size - 2,
    mask=size - 1,
    tokenizer='none',
  )


def batch(config: config_lib.Config) -> batch_lib.Batch:
  """Random text, every position a target."""
  shape, rng = (config.data.batch_size, config.data.row_length), np.random.default_rng(0)
  length = np.arange(shape[1], dtype=np.int32)
  ids = rng.integers(5, 1000, shape).astype(np.int32)
  whole = np.broadcast_to(length, shape).copy()
  ones, zeros = np.ones(shape, np.float32), np.zeros(shape, np.float32)
  fields = (ids, whole, np.zeros_like(ids), whole + 1, np.roll(ids, -1, 1), ones, zeros)
  return batch_lib.Batch(*fields, normalizer=np.full(shape[0], shape[1], np.float32))


class Named(threading.Thread):
  """Waits until a step has its name, while others work.

  Attributes:
    when: it had it.
  """

  def __init__(self, path: pathlib.Path):
    """Begins to wait for `path`."""
    super().__init__(daemon=True)
    self._path, self.when = path, math.nan
    self.start()

  def run(self) -> None:
    while not self._path.exists():
      time.sleep(0.005)
    self.when = time.perf_counter()


def run(step, current, placed, steps: int, store: saver.Saver | None, folder: str = ''):
  """Seconds of some steps, with `store` blocked, behind and beside too; and the last state."""
  jax.block_until_ready(current)
  begin = time.perf_counter()
  for number in range(steps):
    current, results = step(current, placed)
    jax.block_until_ready(results)
    if store and number == 1:
      jax.block_until_ready(current)
      named = Named(checkpoint.folder(folder, int(current.step)))
      start = time.perf_counter()
      store.save(int(current.step), current.params, current.optimizer)
      blocked = time.perf_counter() - start
  end = time.perf_counter()
  took = {'seconds': end - begin}
  if store:
    store.finish()
    named.join()
    took |= {'blocked': blocked, 'behind': named.when - start, 'beside': end - start}
  return took, current


def main():
  """Runs the benchmark."""
  flags = parse_arguments()
  results = record.begin(FORMULA, ('jax', 'orbax-checkpoint', 'numpy'))
  config = settings(64 if flags.quick else flags.width, 2 if flags.quick else 6)
  rounds, steps = (1, 8) if flags.quick else (flags.rounds, flags.steps)
  words = vocabulary(8192)
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  made = program.assemble(config, words, mesh)
  current = state.fresh(made.model, made.optimizer, mesh, made.layout, 0)
  placed = sharding.put_batch(batch(config), mesh, config.data.batch_size)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves((current.params, current.optimizer)))
  *_, current = run(made.step, current, placed, 2, None)  # compiles
  times = {'alone': [], 'saving': [], 'blocked': [], 'behind': [], 'beside': []}
  with tempfile.TemporaryDirectory() as folder:
    with checkpoint.opened(folder, 2) as checkpoints:
      store = saver.Saver(checkpoints, folder, {})
      for _ in range(rounds + 1):  # the first save of a process makes threads and folders
        took, current = run(made.step, current, placed, steps, None)
        times['alone'].append(took['seconds'])
        took, current = run(made.step, current, placed, steps, store, folder)
        times['saving'].append(took.pop('seconds'))
        for name, value in took.items():
          times[name].append(value)
    saved = checkpoint.folder(folder, checkpoint.latest(folder))
    start = time.perf_counter()
    hashes.write(saved)
    hashing = time.perf_counter() - start
    start = time.perf_counter()
    if hashes.damage(saved):
      raise AssertionError('what was just written is damaged')
    verifying = time.perf_counter() - start
    stored = sum(path.stat().st_size for path in pathlib.Path(saved).rglob('*'))
  middle = {name: float(np.median(values[1:])) for name, values in times.items()}
  cost = middle['saving'] - middle['alone']
  results |= middle | {'steps': steps, 'rounds': rounds, 'times': times}
  results |= {'state_mib': size / 2**20, 'stored_mib': stored / 2**20, 'cost': cost}
  results |= {'interval_for_2_percent': cost / 0.02, 'hashing': hashing, 'verifying': verifying}
  for name, value in results.items():
    if isinstance(value, float):
      print(f'{name:>24} {value:10.3f}')
  if middle['behind'] > middle['beside']:
    print('a save has outlasted the steps beside it, and cost is too low: give more --steps')
  record.save(results, flags.json)


if __name__ == '__main__':
  main()
