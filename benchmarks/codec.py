"""How much of what is said survives the codec, as an independent listener hears it.

    python benchmarks/codec.py [--quick] [--json FILE]

Codecs of several rates and sizes are fitted on the little world's training sentences.
Its test sentences are then spoken, coded, decoded and recognised. `original` is the same
speech without a codec: the floor that no model can be expected to beat.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jiwer
import numpy as np
import record

from data_pipelines.little_world import speech, sums
from ttt_jax.codecs import mel_vq
from ttt_jax.evaluation.recognisers import sphinx

FORMULA = 'WER = (S + D + I) / N words, by jiwer; heard by pocketsphinx in a closed vocabulary'
CODECS = ((4, 512), (4, 1024), (8, 1024), (2, 512))  # frames a token, codebook size
TASKS = ('strings', 'questions', 'numbers')
_LIBRARIES = ('numpy', 'scipy', 'soxr', 'espeakng-loader', 'pocketsphinx', 'jiwer')
_SEED = 0
_FIT_UTTERANCES = 800


@dataclasses.dataclass
class Row:
  """One line of the table; rates are in utterances a second, the errors fractions."""

  voices: int
  codec: str
  strings: float
  questions: float
  numbers: float
  fit_seconds: float | None = None
  encode_rate: float | None = None
  decode_rate: float | None = None
  tokens: dict[str, float] | None = None  # mean number, by task


class Judge:
  """The test sentences of every task, and a listener for each."""

  def __init__(self, strings: int, every: int):
    world = sums.make_world(_FIT_UTTERANCES, strings, _SEED)
    self.training = world.train_strings + tuple(q.text for q in world.train_questions)
    self.texts = {
      'strings': world.test_strings,
      'questions': tuple(q.text for q in world.test_questions[::every]),
      'numbers': sums.NUMBERS,
    }
    self._listeners = {
      'strings': sphinx.PocketSphinx.of(sums.DIGITS),
      'questions': sphinx.PocketSphinx.of(sums.WORDS),
      'numbers': sphinx.PocketSphinx.of(sums.NUMBERS, single=True),
    }
    self.hear_seconds = {task: 0.0 for task in TASKS}
    self.heard = {task: 0 for task in TASKS}

  def error_rates(self, waves: dict[str, list[np.ndarray]], voices: int) -> dict[str, float]:
    """Word error rate of every task, for `waves` of all texts in one voice after another."""
    rates = {}
    for task in TASKS:
      begin = time.perf_counter()
      heard = [self._listeners[task].hear(w, speech.SAMPLE_RATE) for w in waves[task]]
      self.hear_seconds[task] += time.perf_counter() - begin
      self.heard[task] += len(heard)
      rates[task] = jiwer.wer(list(self.texts[task]) * voices, heard)
    return rates


def _timed(function: Callable, items: list) -> tuple[list, float]:
  begin = time.perf_counter()
  results = [function(item) for item in items]
  return results, len(items) / (time.perf_counter() - begin)


def _fit_waves(judge: Judge, voices: tuple[speech.Voice, ...]) -> list[np.ndarray]:
  # Strings, questions and lone numbers in proportion, voices taking turns.
  texts = [judge.training[i] for i in np.random.default_rng(_SEED).permutation(1400)]
  texts = (list(sums.NUMBERS) * 4 + texts)[:_FIT_UTTERANCES]
  return [speech.say(text, voices[i % len(voices)]) for i, text in enumerate(texts)]


def measure(judge: Judge, num_voices: int) -> list[Row]:
  """One row for the original speech and one for each codec."""
  voices = speech.VOICES[:num_voices]
  original = {
    task: [speech.say(text, voice) for voice in voices for text in judge.texts[task]]
    for task in TASKS
  }
  rows = [Row(num_voices, 'original', **judge.error_rates(original, num_voices))]
  waves = _fit_waves(judge, voices)
  for frames, size in CODECS:
    begin = time.perf_counter()
    coder = mel_vq.MelVQ.fit(
      waves, speech.SAMPLE_RATE, frames_per_token=frames, codebook_size=size, seed=_SEED
    )
    fit_seconds = time.perf_counter() - begin
    coder.decode(np.zeros(1, np.int32))  # once, so that its table is not timed below
    encode = functools.partial(coder.encode, sample_rate=speech.SAMPLE_RATE)
    decoded, tokens, rates = {}, {}, []
    for task in TASKS:
      ids, encode_rate = _timed(encode, original[task])
      decoded[task], decode_rate = _timed(coder.decode, ids)
      tokens[task] = float(np.mean([len(i) for i in ids]))
      rates.append((encode_rate, decode_rate))
    name = f'{coder.frame_rate:g} Hz x {size:,}'
    errors = judge.error_rates(decoded, num_voices)
    rows.append(Row(num_voices, name, **errors, fit_seconds=fit_seconds, tokens=tokens))
    rows[-1].encode_rate, rows[-1].decode_rate = rates[0]  # of digit strings
    print('.', end='', flush=True)
  print()
  return rows


def _table(rows: list[Row]) -> str:
  lines = [
    '| voices | codec | strings | questions | numbers | fit s | encode/s | decode/s | tokens |',
    '| --- | --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for row in rows:
    cells = [str(row.voices), row.codec]
    cells += [f'{100 * getattr(row, task):.1f} %' for task in TASKS]
    if row.tokens:
      cells += [f'{row.fit_seconds:.1f}', f'{row.encode_rate:.0f}', f'{row.decode_rate:.0f}']
      cells.append(' / '.join(f'{row.tokens[task]:.0f}' for task in TASKS))
    else:
      cells += ['', '', '', '']
    lines.append('| ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
  """Runs the benchmark and prints its table."""
  options = record.parser(__doc__, 'one voice, fewer sentences').parse_args(arguments)
  results = record.begin(FORMULA, _LIBRARIES)
  judge = Judge(strings=40, every=4) if options.quick else Judge(strings=60, every=3)
  rows = []
  for num_voices in (1,) if options.quick else (1, 4):
    measured = measure(judge, num_voices)
    print(_table(measured), flush=True)
    rows += measured
  speeds = {task: judge.heard[task] / judge.hear_seconds[task] for task in TASKS}
  print('heard a second: ' + ', '.join(f'{t} {s:.0f}' for t, s in speeds.items()))
  results |= {'heard_a_second': speeds, 'rows': [dataclasses.asdict(row) for row in rows]}
  record.save(results, options.json)


if __name__ == '__main__':
  main()
