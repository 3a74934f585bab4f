"""Whether a step ever waits for its data: what a host's pipeline makes, and what steps want.

    python benchmarks/loading.py [--quick] [--json FILE]

Makes a data set of audio chats of about a thousand tokens (random words, random codes of
16,384), packs it into rows of 4,096, and counts the tokens that one process makes in a second.
Then it plays the training loop of one host: a step is a sleep, as long as the host's chips need
for its rows. At an MFU of 100 % no real step is shorter. The loop is fed with rows made ahead,
as in training, and with rows made when they are wanted; the share of time in which it waits is
taken behind the first batch. Training waits less: its host takes a batch while the devices are
at work on the step before.
"""

import itertools
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import record

from configs import ttt_0p5b, ttt_7b
from data_pipelines import loader, records, rows
from ttt_jax import assets as assets_lib
from ttt_jax import batch as batch_lib
from ttt_jax import chat, chips
from ttt_jax import config as config_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import external
from ttt_jax.model import formula
from ttt_jax.planning import plan

FORMULA = (
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
_SOME_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'plus', 'minus')
_LIBRARIES = ('grain', 'array_record', 'tensorflow-datasets', 'numpy')
_SEED = 0


def conversation(rng: np.random.Generator, template: chat.Template) -> chat.Document:
  """An audio chat at 12.5 tokens a second, of one to four turns of each side.

  A question is 2 to 12 seconds of sound; an answer is 2 to 6 sentences, each first in 8 to 20
  words and then in 2 to 8 seconds of sound.
  """
  turns = [chat.Turn('system', ['answer'])]
  for _ in range(rng.integers(1, 5)):
    turns.append(chat.Turn('user', [rng.integers(0, CODES, rng.integers(25, 150))]))
    parts = []
    for _ in range(rng.integers(2, 7)):
      parts.append(' '.join(rng.choice(_SOME_WORDS, rng.integers(8, 21))))
      parts.append(rng.integers(0, CODES, rng.integers(25, 100)))
    turns.append(chat.Turn('assistant', parts))
  return template.document(turns)


def write(directory: pathlib.Path, count: int) -> records.Source:
  """A data set of so many chats."""
  rng = np.random.default_rng(_SEED)
  text = [' '.join(rng.choice(_SOME_WORDS, 6)) for _ in range(300)]
  tokenizer = tokenizer_lib.SentencePiece.train([*text, *(chat.ROLES * 50)], 380)
  vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, CODES)
  codec = external.External('none', CODES)
  assets = assets_lib.Assets(vocabulary, tokenizer, codec, {assets_lib.ANSWER: ['answer']})

  def examples() -> Iterator[records.Record]:
    for number in range(count):
      document = conversation(rng, assets.template)
      yield records.Record(str(number), document, {'task': assets_lib.ANSWER, 'text': ''})

  records.write(directory, {'train': examples}, assets)
  return records.Source(directory, 'train')


def read_ahead(stream: rows.Rows, threads: int) -> Iterator[batch_lib.Batch]:
  """Batches of the host, made ahead by threads."""
  return loader.batches(stream, ROWS, 10**6, threads=threads)


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
    tokens += int((batch.kv_end > batch.kv_start).sum())
    count += ROWS
  return {'rows_per_second': count / passed, 'tokens_per_second': tokens / passed}


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
  seconds, count = (5, 400) if options.quick else (20, 4000)
  results = record.begin(FORMULA, _LIBRARIES)
  config = config_lib.from_config_dict(ttt_7b.get_config())
  with tempfile.TemporaryDirectory() as folder:
    source = write(pathlib.Path(folder, 'data'), count)
    stream = rows.Rows([source], config.data, config.mask, config.objective, _SEED)
    some = [formula.measured(batch) for batch in itertools.islice(when_wanted(stream), 8)]
    like = formula.mean(some)
    print('rows: ' + ', '.join(f'{name} {value:.4g}' for name, value in like._asdict().items()))
    made = {'when wanted': rate(when_wanted(stream), seconds)}
    for threads in (1, 2, 4):
      made[f'ahead, threads {threads}'] = rate(read_ahead(stream, threads), seconds)
    print(_made(made), flush=True)
    loops = of_hosts(stream, config.data, like, seconds)
  print(_played(loops))
  more = {'rows': like._asdict(), 'pipeline': made, 'loops': loops}
  record.save(results | more, options.json)


def _made(made: dict[str, dict]) -> str:
  lines = ['| rows made | rows/s | tokens/s |', '| --- | --- | --- |']
  for name, found in made.items():
    cells = found['rows_per_second'], found['tokens_per_second']
    lines.append(f'| {name} | {cells[0]:,.0f} | {cells[1]:,.0f} |')
  return '\n'.join(lines)


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
