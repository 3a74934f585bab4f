"""What attention by intervals costs: work, memory, compilation, and time where it can be told.

    python benchmarks/kernels.py [--quick] [--json FILE]

Everything of TPUs is compiled for them by libtpu on this machine and runs on none: compile
time, temporaries and vector memory are libtpu's, speeds are not known. The work is counted
on packed rows of audio chat. Times are of this machine's CPU, and of a GPU if it has one.
"""

import functools
import os
import re
import time

os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # no TPU here to ask
os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')

import jax
import jax.numpy as jnp
import numpy as np
import record
from jax.experimental import topologies
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from configs import tiny
from data_pipelines.stream import packing
from ttt_jax import config as config_lib
from ttt_jax import mask
from ttt_jax.model import transformer
from ttt_jax.ops import attention
from ttt_jax.ops.attention import tpu, walk

FORMULA = 'work = pairs of query and key in the blocks walked / pairs that the mask shows'
HEADS, KV_HEADS, WIDTH = 28, 4, 128  # of a model of 7 billion parameters
KINDS = {'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}
ROW = 8192
_LIBRARIES = ('jax', 'jaxlib', 'libtpu', 'numpy')
_SEED = 0


def conversation(rng: np.random.Generator, length: int) -> np.ndarray:
  """Order groups of an audio chat at 12.5 tokens a second, cut to a length.

  A turn is a question of 2 to 12 seconds, and an answer of 2 to 6 sentences, each first in
  10 to 30 tokens of text and then in 2 to 8 seconds of sound.
  """
  sizes = []
  while sum(sizes) < length:
    sizes += [1] * 5 + [int(rng.uniform(25, 150))] + [1] * 5
    for _ in range(rng.integers(2, 7)):
      sizes += [1] * rng.integers(10, 31) + [int(rng.uniform(25, 100))]
  return np.repeat(np.arange(len(sizes)), sizes)[:length]


def packed_rows(length: int, documents: float, streams: int, records: int = 48):
  """Intervals int32 [rows, intervals, length] of rows of so many documents on average.

  With two streams the sounds of a document follow it once more, as noisy copies.
  """
  rng = np.random.default_rng(_SEED)
  sizes = rng.lognormal(np.log(length / documents) - 0.18, 0.6, records)
  made = [_document(rng, int(size), streams) for size in np.minimum(sizes, length)]
  made = [document for document in made if len(document[0]) <= length]
  packed = packing.pack(np.array([len(d[0]) for d in made]), length, rng)
  start, end = [], []
  for row in np.split(packed.items, packed.offsets[1:-1]):
    edges = np.zeros((2, streams, length), np.int32)
    at = 0
    for document in row:
      size = len(made[document][0])
      for edge, part in zip(edges, made[document]):
        edge[:, at : at + size] = at + part.T
      at += size
    start.append(edges[0])
    end.append(edges[1])
  return np.stack(start), np.stack(end)


def _document(rng, length, streams):
  """Starts and ends, int [positions, intervals]."""
  groups = conversation(rng, length if streams == 1 else int(length / 1.7))
  ends = mask.group_ends(groups)
  starts = np.zeros_like(ends)
  if streams == 1:
    return starts[:, None], ends[:, None]
  sizes = np.bincount(groups)
  noisy = groups[sizes[groups] > 1]
  own = np.searchsorted(noisy, noisy), np.searchsorted(noisy, noisy, side='right')
  zeros, begin = np.zeros(len(noisy), int), np.searchsorted(groups, noisy)
  first = np.concatenate([starts, zeros]), np.concatenate([ends, begin])
  second = [np.concatenate([starts, len(groups) + edge]) for edge in own]
  return np.stack([first[0], second[0]], 1), np.stack([first[1], second[1]], 1)


def work(quick: bool) -> list[dict]:
  """Work of both walks, beside what others do on the same rows."""
  rows = []
  for documents, streams in ((1.5, 1), (1.5, 2)) if quick else ((1.5, 1), (4, 1), (1.5, 2)):
    start, end = packed_rows(ROW, documents, streams)
    useful = int((end - start).sum())
    line = {'documents': documents, 'intervals': streams, 'rows': len(start)}
    for blocks in ((512, 512), tpu.default_blocks(HEADS // KV_HEADS)):
      matrix = walk.block_matrix(jnp.array(start), jnp.array(end), *blocks, ROW)
      keys, queries = (
        walk.steps(walk.runs(*(part.swapaxes(1, way) for part in matrix))).sum()
        for way in (1, 2)
      )
      name = '{} x {}'.format(*blocks)
      line[name] = int(keys) * blocks[0] * blocks[1] / useful
      line[name + ' backward'] = int(queries) * blocks[0] * blocks[1] / useful
    causal = ROW // 512 * (ROW // 512 + 1) // 2 * 512**2
    line['causal with segments'] = len(start) * causal / useful
    line['dense'] = len(start) * ROW**2 / useful
    rows.append(line)
  return rows


def _with_gradients(attend, q, k, v, gradient, *edges):
  """The output, and the gradients of q, k and v given the output's."""
  out, pull = jax.vjp(lambda *x: attend(*x, *edges), q, k, v)
  return out, *pull(gradient)


def _splash(q, k, v, *edges):
  """jax's splash attention as it comes: causal, with segments."""
  length = q.shape[1]
  kernel = splash.make_splash_mha(
    mask=masks.MultiHeadMask([masks.CausalMask((length, length))] * q.shape[2]),
    block_sizes=splash.BlockSizes(
      **{f'block_{a}{b}': 512 for a in ('q', 'kv') for b in ('', '_dkv', '_dq')},
      block_kv_compute=512,
      block_kv_dkv_compute=512,
    ),
    head_shards=1,
    q_seq_shards=1,
  )
  heads_first = [x.swapaxes(1, 2) for x in (q, k, v)]
  segments = splash.SegmentIds(edges[0], edges[0])
  return jax.vmap(kernel)(*heads_first, segments).swapaxes(1, 2)


def _heads_first(attend, q, k, v, *edges):
  """Of [B, N, L, H], as XLA lays out what comes from a projection: it moves nothing."""
  return attend(*(x.swapaxes(1, 2) for x in (q, k, v)), *edges).swapaxes(1, 2)


def compiled_for(kind: str, attend, queries, keys) -> dict:
  """What libtpu says of attention and its gradients; of attention alone for one query.

  Args:
    kind: of TPU.
    attend: the attention.
    queries: the shape [B, N, L, H].
    keys: the shape [B, K, S, H].
  """
  device = topologies.get_topology_desc(platform='tpu', topology_name=KINDS[kind]).devices[0]
  where = jax.sharding.SingleDeviceSharding(device)
  shape = functools.partial(jax.ShapeDtypeStruct, sharding=where)
  edge = shape((queries[0], queries[2]), jnp.int32)
  q, k = shape(queries, jnp.bfloat16), shape(keys, jnp.bfloat16)
  arrays, run = [q, k, k], functools.partial(_heads_first, attend)
  if queries[2] > 1:
    arrays, run = [q, k, k, q], functools.partial(_with_gradients, run)
  with jax.default_device(device):
    lowered = jax.jit(run).lower(*arrays, edge, edge)
    begin = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begin
  size = re.compile(r'"used_scoped_memory_configs":\[\{[^]]*?"size":"(\d+)"')
  calls = [line for line in compiled.as_text().splitlines() if '"tpu_custom_call"' in line]
  return {
    'kind': kind,
    'length': queries[2],
    'seconds': seconds,
    'temporaries_mib': compiled.memory_analysis().temp_size_in_bytes / 2**20,
    'vmem_mib': [int(n) / 2**20 for line in calls for n in size.findall(line)],
  }


def compilation(quick: bool) -> list[dict]:
  """Compilation for TPUs of ours at several lengths, and of others."""
  ours = functools.partial(attention.interval_attention, implementation='tpu')
  dense = functools.partial(attention.interval_attention, implementation='dense')
  todo = [('interval', 'v5e', ours, ROW), ('splash, causal', 'v5e', _splash, ROW)]
  if not quick:
    todo += [('interval', kind, ours, ROW) for kind in ('v5p', 'v6e')]
    todo += [('interval', kind, ours, 32_768) for kind in KINDS]
    todo += [('interval', 'v5e', ours, length) for length in (65_536, 131_072)]
    todo += [('splash, causal', 'v5e', _splash, 32_768)]
    todo += [('dense', 'v5p', dense, ROW)]
  rows = []
  for name, kind, attend, length in todo:
    queries, keys = (1, HEADS, length, WIDTH), (1, KV_HEADS, length, WIDTH)
    rows.append({'attention': name, **compiled_for(kind, attend, queries, keys)})
    print('.', end='', flush=True)
  queries, keys = (8, HEADS, 1, WIDTH), (8, KV_HEADS, 32_768, WIDTH)
  decode = compiled_for('v5e', ours, queries, keys)
  rows.append({'attention': 'interval, 8 rows x 1 query, 32,768 keys', **decode})
  print()
  return rows


def _timed(functions: dict, repeats: int, *arguments) -> dict[str, float]:
  """Least seconds of each, taking turns."""
  best = dict.fromkeys(functions, np.inf)
  for function in functions.values():
    jax.block_until_ready(function(*arguments))
  for _ in range(repeats):
    for name, function in functions.items():
      begin = time.perf_counter()
      jax.block_until_ready(function(*arguments))
      best[name] = min(best[name], time.perf_counter() - begin)
  return best


def on_cpu(quick: bool) -> list[dict]:
  """Attention and the quickstart's model, dense and chunked, value and gradients."""
  rows = []
  for length in (128, 256, 512, 1024) if quick else (128, 256, 512, 1024, 2048, 4096):
    batch = max(1, 4096 // length)
    start, end = (jnp.array(edge[:1, 0]) for edge in packed_rows(length, 3, 1))
    start, end = (jnp.broadcast_to(edge, (batch, length)) for edge in (start, end))
    rng = np.random.default_rng(_SEED)
    q, k, v = (
      jnp.array(rng.normal(size=(batch, length, 4, 32)), jnp.float32) for _ in range(3)
    )
    names = ('dense', 'chunked')
    attends = {
      name: jax.jit(
        functools.partial(
          _with_gradients, functools.partial(attention.interval_attention, implementation=name)
        )
      )
      for name in names
    }
    seconds = _timed(attends, 5, q, k, v, q, start, end)
    line = {'length': length, 'rows': batch, **seconds}
    line['ratio'] = seconds['dense'] / seconds['chunked']
    if length in (256, 512, 2048):
      models = {name: _model(name) for name in names}
      ids = jnp.array(rng.integers(0, 800, (batch, length)), jnp.int32)
      seconds = _timed(models, 3, ids, jnp.maximum(0, jnp.arange(length) - start), start, end)
      line['model_ratio'] = seconds['dense'] / seconds['chunked']
    rows.append(line)
  return rows


def _model(implementation: str):
  """Loss and gradients of the quickstart's model, by ids, positions and intervals."""
  settings = tiny.get_config()
  settings.model.attention = implementation
  model = transformer.Transformer(config_lib.from_config_dict(settings).model, 800)
  ids = jnp.zeros((1, 2), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(_SEED), ids, ids, ids, ids + 1)

  def loss(params, ids, *rest):
    return jax.nn.logsumexp(model.apply(params, ids, *rest), -1).mean()

  return functools.partial(jax.jit(jax.value_and_grad(loss)), params)


def on_gpu(quick: bool) -> list[dict]:
  """Useful TFLOP/s, forward and backward, beside cuDNN's causal and torch's FlexAttention."""
  rows = []
  for length in (4096, 8192) if quick else (4096, 8192, 32_768):
    start, end = (
      jnp.array(edge[: 32_768 // length, 0]) for edge in packed_rows(length, 1.5, 1)
    )
    rng = np.random.default_rng(_SEED)
    q, k, v = (
      jnp.array(rng.normal(size=(*start.shape, heads, WIDTH)), jnp.bfloat16)
      for heads in (HEADS, KV_HEADS, KV_HEADS)
    )
    attends = {
      'interval': functools.partial(attention.interval_attention, implementation='gpu'),
      'cudnn causal': _causal,
    }
    functions = {
      name: jax.jit(functools.partial(_with_gradients, attend))
      for name, attend in attends.items()
    }
    seconds = _timed(functions, 10, q, k, v, q, start, end)
    seconds |= _flex(q, k, v, start, end)
    # Two products of a pair and head forward, five backward.
    useful = 7 * 2 * float((end - start).sum()) * HEADS * WIDTH
    rates = {name: useful / s / 1e12 for name, s in seconds.items()}
    rows.append({'length': length, 'rows': len(start), **rates})
  return rows


def _causal(q, k, v, *_):
  return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation='cudnn')


def _flex(*arrays) -> dict[str, float]:
  """Seconds of torch's FlexAttention with the same mask, where torch has CUDA."""
  try:
    import torch
    from torch.nn.attention import flex_attention as flex
  except ImportError:
    return {}
  if not torch.cuda.is_available():
    return {}
  q, k, v = (
    torch.tensor(np.asarray(x.astype(jnp.float32)), device='cuda', dtype=torch.bfloat16)
    .transpose(1, 2)
    .requires_grad_()
    for x in arrays[:3]
  )
  start, end = (torch.tensor(np.asarray(x), device='cuda') for x in arrays[3:])

  def visible(b, h, query, key):
    return (key >= start[b, query]) & (key < end[b, query])

  block_mask = flex.create_block_mask(visible, len(start), None, q.shape[2], k.shape[2])
  attend = torch.compile(flex.flex_attention)

  def run():
    out = attend(q, k, v, block_mask=block_mask, enable_gqa=True)
    torch.autograd.grad(out, (q, k, v), q.detach())
    torch.cuda.synchronize()

  run()
  seconds = []
  for _ in range(10):
    begin = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - begin)
  return {'flex': min(seconds)}


def _table(rows: list[dict]) -> str:
  names = list(dict.fromkeys(name for row in rows for name in row))

  def cell(value) -> str:
    if isinstance(value, list):
      return ' / '.join(map(cell, value))
    return f'{value:.3g}' if isinstance(value, float) and value < 1000 else f'{value:,}'

  lines = ['| ' + ' | '.join(names) + ' |', '|' + ' --- |' * len(names)]
  for row in rows:
    cells = [row.get(name, '') for name in names]
    cells = [c if isinstance(c, str) else cell(c) for c in cells]
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
  """Runs the benchmark and prints its tables."""
  options = record.parser(__doc__, 'one kind of TPU, shorter rows').parse_args(arguments)
  results = record.begin(FORMULA, _LIBRARIES, backend=jax.default_backend())
  parts = {'work': work, 'compilation': compilation}
  parts |= {'gpu': on_gpu} if jax.default_backend() == 'gpu' else {'cpu': on_cpu}
  for name, part in parts.items():
    results[name] = part(options.quick)
    print(f'\n{name}\n{_table(results[name])}', flush=True)
  record.save(results, options.json)


if __name__ == '__main__':
  main()
