"""From records to rows: how fast, how full, and whether a step ever waits for them.

    python benchmarks/data.py [--quick] [--json FILE]

Plans: the rows of a million records, from their lengths alone; the fill of rows by ours and
by grain's packing; useful tokens beside the authors' rows, one record each, which is padded or
cut to 2,048. Rows: two data sets of audio chats (random words, random codes of 16,384), one of
lognormal lengths and one of about a thousand tokens, made into corrupted rows of 4,096 tokens
by threads and by worker processes. Loops: the training loop of one host, where a step is a
sleep, as long as the host's chips need for its rows. At an MFU of 100 % no real step is
shorter. The loop is fed with rows made ahead, as in training, and with rows made when they are
wanted; the share of time in which it waits is taken behind the first batch. Training waits
less: its host takes a batch while the devices are at work on the step before.
"""

import itertools
import pathlib
import tempfile
import time
import types
from collections.abc import Iterator

import grain
import numpy as np
import record

from configs import ttt_0p5b, ttt_7b
from data_pipelines import records
from data_pipelines.stream import loader, packing, rows
from data_pipelines.stream import plan as plan_lib
from ttt_jax import assets as assets_lib
from ttt_jax import batch as batch_lib
from ttt_jax import chat, chips
from ttt_jax import config as config_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import external
from ttt_jax.diffusion import corruption
from ttt_jax.model import formula
from ttt_jax.planning import plan

FORMULA = (
  'fill = tokens of packed records / (rows * 4096)\n'
  'tokens wanted in a second = chips of a host * their peak * MFU / operations of a token\n'
  + formula.TEXT
)
# Model, its settings, kind of chip, chips of a host.
HOSTS = (
  ('7B', ttt_7b, 'v5e', 8),
  ('7B', ttt_7b, 'v5p', 4),
  ('7B', ttt_7b, 'v6e', 8),
  ('0.5B', ttt_0p5b, 'v5e', 8),
)
MFU = (0.5, 1.0)
WORDS, CODES = 151_665, 16_384  # Qwen2.5's tokenizer, GLM-4-Voice's codec
ROWS = 8  # that a host works on in a step
ROW, AUTHORS_ROW = 4096, 2048
MEANS, SIGMA = (660, 1800), 0.7  # of lognormal lengths
AHEAD = ((1, 0), (2, 0), (1, 1), (1, 2))  # threads, workers
_SOME_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'plus', 'minus')
_LIBRARIES = ('grain', 'array_record', 'tensorflow-datasets', 'numpy')
_SEED = 0


def lengths_of(mean: int, count: int) -> np.ndarray:
  """Lognormal lengths, int64 [count]."""
  rng = np.random.default_rng(_SEED)
  return rng.lognormal(np.log(mean) - SIGMA**2 / 2, SIGMA, count).astype(np.int64).clip(2)


def conversation(rng: np.random.Generator, template: chat.Template, turns: int):
  """An audio chat at 12.5 tokens a second, of so many turns of each side.

  A question is 2 to 12 seconds of sound; an answer is 2 to 6 sentences, each first in 8 to 20
  words and then in 2 to 8 seconds of sound.
  """
  said = [chat.Turn('system', ['answer'])]
  for _ in range(turns):
    said.append(chat.Turn('user', [rng.integers(0, CODES, rng.integers(25, 150))]))
    parts = []
    for _ in range(rng.integers(2, 7)):
      parts.append(' '.join(rng.choice(_SOME_WORDS, rng.integers(8, 21))))
      parts.append(rng.integers(0, CODES, rng.integers(25, 100)))
    said.append(chat.Turn('assistant', parts))
  return template.document(said)


def chats(rng, template, count: int) -> Iterator[chat.Document]:
  """Of one to four turns of each side: about a thousand tokens."""
  for _ in range(count):
    yield conversation(rng, template, rng.integers(1, 5))


def lognormal(rng, template, count: int) -> Iterator[chat.Document]:
  """Chats that are cut at the lengths of the first of MEANS, if an answer has begun there."""
  for length in lengths_of(MEANS[0], count):
    document = corruption.truncate(conversation(rng, template, 1 + length // 400), int(length))
    if document.targets[1:].any():
      yield document


def write(directory: pathlib.Path, make, count: int) -> records.Source:
  """A data set of so many chats."""
  rng = np.random.default_rng(_SEED)
  text = [' '.join(rng.choice(_SOME_WORDS, 6)) for _ in range(300)]
  tokenizer = tokenizer_lib.SentencePiece.train([*text, *(chat.ROLES * 50)], 380)
  vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, CODES)
  codec = external.External('none', CODES)
  assets = assets_lib.Assets(vocabulary, tokenizer, codec, {assets_lib.ANSWER: ['answer']})

  def examples() -> Iterator[records.Record]:
    for number, document in enumerate(make(rng, assets.template, count)):
      yield records.Record(str(number), document, {'task': assets_lib.ANSWER, 'text': ''})

  records.write(directory, {'train': examples}, assets)
  return records.Source(directory, 'train')


def of_plan(config: config_lib.Config, mean: int, count: int) -> dict[str, float]:
  """Planning an epoch of so many records: time of the processor, and memory on top."""
  with tempfile.TemporaryDirectory() as folder:
    pathlib.Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before, start = _memory('VmRSS'), time.process_time()
    lengths = lengths_of(mean, count)
    shapes = records.Shapes(lengths, lengths // 2, lengths // 4)
    source = types.SimpleNamespace(
      shapes=shapes, directory=pathlib.Path(folder), split='train', fingerprint=''
    )
    planned = plan_lib.Plan([source], config.data, config.mask, config.objective, _SEED)
    last = -(-len(planned.decks[0]) // planned.window_size) - 1
    planned.window(last)
    seconds = time.process_time() - start
    tokens = found = 0
    for number in range(min(last, 8)):
      window = planned.window(number)
      whole = lengths[window.records]
      tokens += int(np.where(window.cuts, window.cuts, whole).sum())
      found += len(window)
    return {
      'mean': mean,
      'records': count,
      'left_out': planned.decks[0].too_long / count,
      'seconds': seconds,
      'peak_mib': _memory('VmHWM') - before,
      'fill_with_cuts': tokens / (found * config.data.row_length),
    }


def _memory(name: str) -> float:
  """MiB, by a name of Linux's."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def of_fill(mean: int, window: int, count: int) -> dict:
  """Fill and processor seconds per million records, of ours and of grain's packing."""
  lengths = lengths_of(mean, count)
  lengths = lengths[lengths <= ROW]

  def ours() -> int:
    rng = np.random.default_rng(_SEED)
    parts = range(0, len(lengths), window)
    return sum(len(packing.pack(lengths[i : i + window], ROW, rng)) for i in parts)

  def theirs(packer, bins: int) -> int:
    source = grain.MapDataset.range(len(lengths)).map(
      lambda i: {'x': np.zeros(lengths[i], np.int32)}
    )
    length, more = {'x': ROW}, {'num_packing_bins': bins, 'seed': _SEED}
    return sum(1 for _ in packer(source.to_iter_dataset(), length_struct=length, **more))

  first, best = (
    grain.experimental.FirstFitPackIterDataset,
    grain.experimental.BestFitPackIterDataset,
  )
  ways = {f'ours, window {window}': ours}
  for bins in (64, 512):
    ways[f'grain first fit, {bins} bins'] = lambda bins=bins: theirs(first, bins)
    ways[f'grain best fit, {bins} bins'] = lambda bins=bins: theirs(best, bins)
  out = {}
  for name, way in ways.items():
    start = time.process_time()
    made = way()
    seconds = (time.process_time() - start) / len(lengths) * 1e6
    out[name] = {'fill': lengths.sum() / (made * ROW), 'seconds_per_million': seconds}
  return {
    'mean': mean,
    'records': len(lengths),
    'ways': out,
    'useful': _useful(mean, count, out),
  }


def _useful(mean: int, count: int, ways: dict) -> dict[str, float]:
  """Useful tokens in 4,096 positions, and the tokens that are lost, by both ways."""
  lengths = lengths_of(mean, count)
  authors = np.minimum(lengths, AUTHORS_ROW)
  fill = next(iter(ways.values()))['fill']
  return {
    'authors': float(authors.mean()) * ROW / AUTHORS_ROW,
    'authors_lost': 1 - authors.sum() / lengths.sum(),
    'ours': fill * ROW,
    'ours_lost': lengths[lengths > ROW].sum() / lengths.sum(),
  }


def of_parts(stream: rows.Rows, config: config_lib.Config, count: int) -> dict:
  """Processor seconds of a million tokens, by what is done with them."""
  start = time.process_time()
  read = [stream.read(index) for index in range(count)]
  middle = time.process_time()
  laid = [[stream.lay(*pair) for pair in row] for row in read]
  late = time.process_time()
  for row in laid:
    rows.pack(row, ROW, config.objective)
  end = time.process_time()
  millions = sum(len(d.tokens) for row in read for d, _ in row) / 1e6
  parts = {'read': middle - start, 'corrupt': late - middle, 'pack': end - late}
  return {name: seconds / millions for name, seconds in parts.items()}


def read_ahead(stream: rows.Rows, threads: int, workers: int = 0) -> Iterator[batch_lib.Batch]:
  """Batches of the host, made ahead."""
  return loader.batches(stream, ROWS, 10**6, threads=threads, workers=workers)


def when_wanted(stream: rows.Rows) -> Iterator[batch_lib.Batch]:
  """The same batches, each made when it is asked for."""
  for first in itertools.count(0, ROWS):
    made = [stream[index] for index in range(first, first + ROWS)]
    yield batch_lib.Batch(*(np.stack(arrays) for arrays in zip(*made)))


def rate(batches: Iterator[batch_lib.Batch], seconds: float) -> dict[str, float]:
  """Rows and tokens that come in a second, over so many seconds behind the first batches."""
  for _ in range(12):  # with what was made ahead
    next(batches)
  tokens, count, start = 0, 0, time.perf_counter()
  while (passed := time.perf_counter() - start) < seconds:
    batch = next(batches)
    tokens += int((batch.visible > 0).sum())
    count += ROWS
  batches.close()
  return {'rows_per_second': count / passed, 'tokens_per_second': tokens / passed}


def of_rows(source: records.Source, config: config_lib.Config, seconds: float) -> dict:
  """Rates of rows made in several ways, and where the time goes."""

  def stream() -> rows.Rows:
    return rows.Rows([source], config.data, config.mask, config.objective, _SEED)

  made = {'when wanted': rate(when_wanted(stream()), seconds)}
  for threads, workers in AHEAD:
    name = f'ahead, threads {threads}, workers {workers}'
    made[name] = rate(read_ahead(stream(), threads, workers), seconds)
  parts = of_parts(stream(), config, int(20 * seconds))
  shape = {'mean': float(source.shapes.lengths.mean()), 'records': len(source)}
  return shape | {'made': made, 'seconds_per_million_tokens': parts}


def play(batches: Iterator[batch_lib.Batch], step: float, seconds: float) -> dict[str, float]:
  """The loop of a host whose steps take so long: how it waits, behind the first batch."""
  next(batches)
  steps, waits = max(10, round(seconds / step)), []
  start = time.perf_counter()
  for _ in range(steps):
    time.sleep(step)
    asked = time.perf_counter()
    next(batches)
    waits.append(time.perf_counter() - asked)
  whole = time.perf_counter() - start
  return {'steps': steps, 'waiting': sum(waits) / whole, 'longest_wait_seconds': max(waits)}


def wanted(settings, chip: str, count: int, like: formula.Rows, mfu: float) -> float:
  """Tokens a second that a host's chips work off, by FORMULA."""
  model = config_lib.from_config_dict(settings.get_config()).model
  size = plan.assumed(WORDS, CODES).size
  of_token = formula.training(model, size, like) / like.fill
  return count * chips.CHIPS[chip].flops * mfu / of_token


def of_hosts(stream: rows.Rows, data: config_lib.Data, like: formula.Rows, seconds: float):
  """The loops of HOSTS, each fed in both ways."""
  loops = []
  for (name, settings, chip, number), mfu in itertools.product(HOSTS, MFU):
    want = wanted(settings, chip, number, like, mfu)
    step = ROWS * data.row_length * like.fill / want
    loop = {
      'host': f'{name} on {number} {chip}, MFU {mfu:.0%}',
      'tokens_per_second': want,
      'step_seconds': step,
      'ahead': play(read_ahead(stream, data.threads), step, seconds),
      'when_wanted': play(when_wanted(stream), step, seconds),
    }
    print(f'{loop["host"]}: waits {loop["ahead"]["waiting"]:.2%}', flush=True)
    loops.append(loop)
  return loops


def main(arguments: list[str] | None = None) -> None:
  """Runs the benchmark and prints its tables."""
  options = record.parser(__doc__, 'fewer records, shorter loops').parse_args(arguments)
  seconds, count, some = (3, 400, 10_000) if options.quick else (20, 4000, 40_000)
  results = record.begin(FORMULA, _LIBRARIES, sigma=SIGMA)
  config = config_lib.from_config_dict(ttt_7b.get_config())
  results['plans'] = [of_plan(config, mean, 10**6) for mean in MEANS]
  print(_planned(results['plans']), flush=True)
  results['fills'] = [of_fill(mean, config.data.window, some) for mean in MEANS]
  print(_filled(results['fills']), flush=True)
  results['rows'] = {}
  with tempfile.TemporaryDirectory() as folder:
    for make in (lognormal, chats):
      source = write(pathlib.Path(folder, make.__name__), make, count)
      found = results['rows'][make.__name__] = of_rows(source, config, seconds)
      print(_made(make.__name__, found), flush=True)
    stream = rows.Rows([source], config.data, config.mask, config.objective, _SEED)
    batches = itertools.islice(when_wanted(stream), 8)
    like = formula.mean([formula.measured(batch) for batch in batches])
    print('rows: ' + ', '.join(f'{name} {value:.4g}' for name, value in like._asdict().items()))
    results['like'] = like._asdict()
    results['loops'] = of_hosts(stream, config.data, like, seconds)
  print(_played(results['loops']))
  record.save(results, options.json)


def _planned(plans: list[dict]) -> str:
  lines = ['| records | mean | left out | CPU seconds | peak MiB on top |', '| --- ' * 5 + '|']
  for found in plans:
    cells = f'{found["records"]:,}', f'{found["mean"]:,}', f'{found["left_out"]:.2%}'
    cells += f'{found["seconds"]:.1f}', f'{found["peak_mib"]:.0f}'
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def _filled(fills: list[dict]) -> str:
  lines = ['| mean | packing | fill | CPU seconds per million |', '| --- ' * 4 + '|']
  for found in fills:
    for name, way in found['ways'].items():
      cells = f'{found["mean"]:,}', name, f'{way["fill"]:.4f}'
      lines.append('| ' + ' | '.join((*cells, f'{way["seconds_per_million"]:.1f}')) + ' |')
  lines += ['| mean | rows | useful tokens of 4,096 | tokens lost |', '| --- ' * 4 + '|']
  for found in fills:
    for name in ('authors', 'ours'):
      useful, lost = found['useful'][name], found['useful'][f'{name}_lost']
      lines.append(f'| {found["mean"]:,} | {name} | {useful:,.0f} | {lost:.2%} |')
  return '\n'.join(lines)


def _made(name: str, found: dict) -> str:
  lines = [f'| rows of {name}, mean {found["mean"]:,.0f} | rows/s | tokens/s |']
  lines.append('| --- ' * 3 + '|')
  for way, rates in found['made'].items():
    cells = rates['rows_per_second'], rates['tokens_per_second']
    lines.append(f'| {way} | {cells[0]:,.0f} | {cells[1]:,.0f} |')
  parts = found['seconds_per_million_tokens'].items()
  said = ', '.join(f'{part} {seconds:.3f}' for part, seconds in parts)
  return '\n'.join([*lines, f'CPU seconds per million tokens: {said}'])


def _played(loops: list[dict]) -> str:
  lines = [
    '| host | wants tokens/s | step | waits | longest | waits, not made ahead |',
    '| --- | --- | --- | --- | --- | --- |',
  ]
  for loop in loops:
    ahead, wait = loop['ahead'], loop['when_wanted']['waiting']
    cells = [loop['host'], f'{loop["tokens_per_second"]:,.0f}']
    cells += [f'{1e3 * loop["step_seconds"]:,.0f} ms', f'{ahead["waiting"]:.2%}']
    cells += [f'{1e3 * ahead["longest_wait_seconds"]:.1f} ms', f'{wait:.2%}']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


if __name__ == '__main__':
  main()
