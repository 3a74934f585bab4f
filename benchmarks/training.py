"""Useful tokens per second of training, against the authors' way of training.

    python benchmarks/training.py [--quick] [--json FILE]

The same documents and a model of the same shape, forward, backward and AdamW. Ours: documents
packed into rows, attention by intervals, the loss of targets alone. Theirs, in torch and
transformers: one document a row, padded to a fixed length, a dense 4D mask of all pairs (sdpa),
logits of all positions. Rows of both hold the same number of positions in a step. On a GPU in
bfloat16, models of 0.5 B and 1.5 B parameters at 4,096 packed and 2,048 padded positions; on a
CPU in float32, a small model at an eighth of that. Compilation is not timed. `--framework`
runs one side alone: both do not always fit on one card.
"""

import dataclasses
import gc
import importlib
import time

import jax
import numpy as np
import record

from configs import base
from data_pipelines.stream import packing
from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import mask as mask_lib
from ttt_jax import sharding
from ttt_jax.conversion import families
from ttt_jax.model import formula
from ttt_jax.planning import plan as plan_lib
from ttt_jax.training import program, state

FORMULA = f"""useful tokens per second = tokens of documents, not padding, / seconds of a step
ratio = ours / theirs; MFU = operations / (seconds * peak), where the peak is known
{formula.TEXT}"""
PEAKS = {
  'NVIDIA H100 80GB HBM3': 989e12,
  'NVIDIA H200': 989e12,
  'NVIDIA A100-SXM4-80GB': 312e12,
}
_LIBRARIES = ('jax', 'torch', 'transformers', 'numpy')
_SEED = 0


def parse_arguments(arguments: list[str] | None = None):
  """Reads the command line."""
  parser = record.parser(__doc__, 'one step of a tiny model after one that is not timed')
  parser.add_argument('--framework', choices=('both', 'ours', 'theirs'), default='both')
  return parser.parse_args(arguments)


def settings(name: str, packed: int, rows: int, dtype: str) -> config_lib.Config:
  """A model of the Qwen2 family; `name` is a config's, or 'small' or 'tiny' for a CPU."""
  if name.startswith('ttt'):
    c = importlib.import_module(f'configs.{name}').get_config()
    c.model.remat = 'gate'
  else:
    c = base.get_config()
    width, layers = {'small': (384, 6), 'tiny': (64, 2)}[name]
    c.model.update({'width': width, 'layers': layers, 'heads': width // 32, 'kv_heads': 2})
    c.model.update({'head_width': 32, 'mlp_width': 3 * width, 'remat': 'none'})
  c.model.dtype, c.data.row_length, c.data.batch_size = dtype, packed, rows
  c.mesh.update({'data': 1, 'fsdp': 1})
  return config_lib.from_config_dict(c)


def documents(count: int, mean: float, most: int, vocabulary) -> list[dict[str, np.ndarray]]:
  """Conversations: a question in text, then 13 tokens of text and 26 of audio in turn.

  Their lengths are lognormal. Half of the audio is masked; masked audio and the answer's text
  are targets.
  """
  rng = np.random.default_rng(_SEED)
  made = []
  for length in rng.lognormal(np.log(mean) - 0.18, 0.6, count).astype(int).clip(64, most):
    index = np.arange(length)
    answer = length // 8
    audio = (index >= answer) & ((index - answer) % 39 >= 13)
    groups = np.cumsum(~(audio & np.roll(audio, 1))) - 1
    ids = rng.integers(10, vocabulary.audio_start, length)
    codes = vocabulary.codebook_start + rng.integers(0, vocabulary.codebook_size, length)
    ids = np.where(audio, codes, ids)
    masked = audio & (rng.random(length) < 0.5)
    made.append(
      {
        'inputs': np.where(masked, vocabulary.mask, ids),
        'targets': np.where(masked, ids, np.roll(ids, -1)),
        'weights': (masked | ((index >= answer) & ~audio & ~np.roll(audio, -1))) / length,
        'ends': mask_lib.group_ends(groups),
      }
    )
  return made


def packed(chosen: list[dict], length: int, rows: int) -> list[batch_lib.Batch]:
  """Whole batches of packed rows, as many as the documents fill."""
  sizes = np.array([len(d['inputs']) for d in chosen])
  plan = packing.pack(sizes, length, np.random.default_rng(_SEED))
  made = []
  for documents_of_row in np.split(plan.items, plan.offsets[1:-1]):
    row, at = batch_lib.empty(length), 0
    for number in documents_of_row:
      document = chosen[number]
      here = slice(at, at + len(document['inputs']))
      for name in ('inputs', 'targets', 'weights'):
        getattr(row, name)[here] = document[name]
      row.positions[here] = np.arange(here.stop - at)
      row.kv_start[here], row.kv_end[here] = at, at + document['ends']
      row.normalizer[...] += 1
      at = here.stop
    made.append(row)
  whole = range(0, len(made) - rows + 1, rows)
  return [jax.tree.map(lambda *a: np.stack(a), *made[i : i + rows]) for i in whole]


def of_ours(config, vocabulary, batches, steps: int) -> dict:
  """Seconds of a step, and useful tokens a second."""
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
  made = program.assemble(config, vocabulary, mesh)
  current = state.fresh(made.model, made.optimizer, mesh, made.layout, _SEED)
  placed = [sharding.put_batch(batch, mesh, len(batch.inputs)) for batch in batches[:steps]]
  current, results = made.step(current, placed[0])
  jax.block_until_ready(results)
  begin = time.perf_counter()
  useful = []
  for number in range(steps):
    current, results = made.step(current, placed[number % len(placed)])
    useful.append(results.sums.filled)
  seconds = (time.perf_counter() - begin) / steps if jax.block_until_ready(current) else 0
  rows = formula.mean([formula.measured(batch) for batch in batches[:steps]])
  operations = formula.training(config.model, vocabulary.size, rows) * batches[0].inputs.size
  out = {'seconds': seconds, 'tokens': float(np.mean(useful)) / seconds, 'fill': rows.fill}
  peak = PEAKS.get(jax.devices()[0].device_kind)
  return out | ({'mfu': operations / seconds / peak} if peak else {})


def of_theirs(config, vocabulary, chosen, length: int, rows: int, steps: int) -> dict:
  """As `of_ours`, with documents padded to `length`."""
  import torch
  import transformers

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  dtype = getattr(torch, config.model.dtype)
  values = families.config_of(config.model, vocabulary.size, 'float32', 1, length)
  model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config.from_dict(values))
  model.set_attn_implementation('sdpa')
  model = model.to(device).train()
  if config.model.remat != 'none':
    model.gradient_checkpointing_enable()
  rule = torch.optim.AdamW(model.parameters(), lr=1e-5)
  batches = []
  for first in range(0, min(len(chosen), rows * steps) - rows + 1, rows):
    arrays = {name: np.zeros((rows, length), int) for name in ('inputs', 'targets')}
    weights = np.zeros((rows, length), np.float32)
    seen = np.zeros((rows, 1, length, length), bool)
    tokens = 0
    for row, document in enumerate(chosen[first : first + rows]):
      size = len(document['inputs'])
      for name, array in arrays.items():
        array[row, :size] = document[name]
      weights[row, :size] = document['weights']
      seen[row, 0, :size] = np.arange(length) < document['ends'][:, None]
      seen[row, 0, size:, 0] = True  # padding must see something, or softmax is NaN
      tokens += size
    placed = [torch.from_numpy(a).to(device) for a in (*arrays.values(), weights, seen)]
    batches.append((tokens, placed))

  def step(inputs, targets, weights, seen):
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):
      bias = torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)
      logits = model(input_ids=inputs, attention_mask=bias, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
      logits.float().flatten(0, 1), targets.flatten(), reduction='none'
    )
    loss = (losses * weights.flatten()).sum() / rows
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    rule.step()
    rule.zero_grad()
    return loss.item()  # waits for the device

  step(*batches[0][1])
  begin = time.perf_counter()
  useful = 0
  for number in range(steps):
    tokens, arrays = batches[number % len(batches)]
    step(*arrays)
    useful += tokens
  seconds = (time.perf_counter() - begin) / steps
  return {
    'seconds': seconds,
    'tokens': useful / steps / seconds,
    'fill': useful / steps / rows / length,
  }


def main() -> None:
  """Prints a table."""
  flags = parse_arguments()
  on_gpu = jax.default_backend() == 'gpu'
  results = record.begin(FORMULA, _LIBRARIES, device=jax.devices()[0].device_kind)
  if on_gpu:
    names, length, rows, mean, dtype = ('ttt_0p5b', 'ttt_1p5b'), 4096, 2, 660, 'bfloat16'
  else:
    names, length, rows, mean, dtype = ('small',), 512, 4, 82, 'float32'
  names, steps = (('tiny',), 1) if flags.quick else (names, 10 if on_gpu else 4)
  text, codes = (151_665, 16_384) if on_gpu and not flags.quick else (4000, 512)
  vocabulary = plan_lib.assumed(text, codes)
  chosen = documents(40 * rows * steps, mean, length // 2, vocabulary)
  results['models'] = {}
  for name in names:
    config = settings(name, length, rows, dtype)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=100))
    found = results['models'][name] = {}
    if flags.framework != 'theirs':
      found['ours'] = of_ours(config, vocabulary, packed(chosen, length, rows), steps)
      jax.clear_caches()
      gc.collect()
    if flags.framework != 'ours':
      found['theirs'] = of_theirs(config, vocabulary, chosen, length // 2, 2 * rows, steps)
    for side, line in found.items():
      shown = ', '.join(f'{key} {value:.4g}' for key, value in line.items())
      print(f'{name} {side}: {shown}', flush=True)
    if len(found) == 2:
      found['ratio'] = found['ours']['tokens'] / found['theirs']['tokens']
      print(f'{name}: ratio {found["ratio"]:.2f}')
  record.save(results, flags.json)


if __name__ == '__main__':
  main()
