"""Quality against speed: what revealing audio in fewer steps costs in words.

    python benchmarks/schedules.py [--checkpoint RUN] [--data DATA] [--quick] [--json FILE]

A run of the quickstart speaks the held-out sentences of its data set with blocks of 8 and of 26
tokens, each revealed in a fixed number of steps or by a threshold of confidence, and an
independent recogniser listens. Words are wrong for two reasons, the model and the codec; the
error of the codec alone stands beside.
"""

import dataclasses
import pathlib
import time
from collections.abc import Sequence

import jax
import jiwer
import record

from data_pipelines import records
from ttt_jax.evaluation import hearing, suite, voices
from ttt_jax.evaluation import items as items_lib
from ttt_jax.pages import markup
from ttt_jax.pages.markup import element
from ttt_jax.sampling import decoder
from ttt_jax.sampling import session as session_lib

FORMULA = """word error rate = edits / words of the references, by the recogniser
passes per token = passes of the network, over all rows of the batch, / audio tokens of a row:
                   1 / block * steps, and the passes that text and the ends of spans take
tokens per second = tokens of all answers / seconds of a second decoding, compiled before"""
BLOCKS = (8, 26)
STEPS = {8: (1, 2, 4, 8), 26: (1, 2, 4, 8, 13, 26)}
THRESHOLDS = (0.5, 0.7, 0.9, 0.95, 0.99)
TASK = suite.Task('speak', (), (suite.Metric('wer', of='speech'),), where={'task': 'speak'})
_LIBRARIES = ('jax', 'numpy')


def parse_arguments(arguments: list[str] | None = None):
  """Reads the command line."""
  parser = record.parser(__doc__, 'a tenth of the sentences, and blocks of 8 alone')
  parser.add_argument('--checkpoint', default='runs/quickstart/run', help='folder of the run')
  parser.add_argument('--data', default='runs/quickstart/data', help='its data set')
  parser.add_argument('--plot', metavar='FILE', help='a picture, SVG')
  return parser.parse_args(arguments)


def settings(blocks: Sequence[int]) -> list[dict]:
  """Of decoding, one by one."""
  out = []
  for block in blocks:
    out += [{'block_size': block, 'steps_per_block': n, 'threshold': 0.0} for n in STEPS[block]]
    out += [{'block_size': block, 'steps_per_block': 1, 'threshold': t} for t in THRESHOLDS]
  return out


def measure(session: session_lib.Session, chosen: list[items_lib.Item], changes: dict) -> dict:
  """One line of the table."""
  sampling = dataclasses.replace(session.config.sampling, **changes)
  made = decoder.Decoder(
    session.model, session.params, session.assets.vocabulary, sampling, session.config.mask
  )
  prompts = [item.prompt for item in chosen]
  made(prompts)
  passes, begin = made.passes, time.perf_counter()
  answers = made(prompts)
  seconds = time.perf_counter() - begin
  vocabulary = session.assets.vocabulary
  audio = [int((a.tokens >= vocabulary.audio_start).sum()) for a in answers]
  listeners = hearing.listeners(TASK, chosen)
  heard = []
  for item, answer in zip(chosen, answers):
    wave = voices.spoken(session.assets, answer)
    heard.append(listeners[item.about['kind']].hear(wave, session.assets.codec.sample_rate))
  return changes | {
    'wer': jiwer.wer([item.about['text'] for item in chosen], heard),
    'passes_per_token': (made.passes - passes) * min(sampling.batch, len(chosen)) / sum(audio),
    'tokens_per_second': sum(len(a.tokens) for a in answers) / seconds,
  }


def drawing(lines: list[dict]) -> str:
  """Word error rate against tokens a second, an SVG file."""
  width, height, left, bottom = 560, 320, 60, 50
  fastest = 1.05 * max(line['tokens_per_second'] for line in lines)
  worst = 1.05 * max(max(line['wer'] for line in lines), 0.01)

  def at(line):
    x = left + (width - left - 20) * line['tokens_per_second'] / fastest
    return round(x, 1), round((height - bottom) * (1 - line['wer'] / worst) + 10, 1)

  style = 'text{font:11px sans-serif;fill:#222}.steps{fill:#4466aa}.threshold{fill:#dd8452}'
  parts = [element('style', style)]
  axis = f'M{left} 10V{height - bottom + 10}H{width - 10}'
  parts.append(element('path', d=axis, fill='none', stroke='#888'))
  for share in (0, 0.5, 1):
    y = (height - bottom) * (1 - share) + 14
    parts.append(element('text', f'{100 * share * worst:.1f} %', x=8, y=y))
    x = left + (width - left - 20) * share
    label = f'{share * fastest:,.0f}'
    parts.append(element('text', label, x=x, y=height - 24, text_anchor='middle'))
  title = 'word error rate against tokens per second; blue: fixed steps, orange: threshold'
  parts.append(element('text', title, x=left, y=height - 6))
  for line in lines:
    x, y = at(line)
    kind = 'threshold' if line['threshold'] else 'steps'
    label = f'{line["threshold"] or line["steps_per_block"]} of {line["block_size"]}'
    parts.append(element('circle', class_=kind, cx=x, cy=y, r=4))
    parts.append(element('text', label, x=x + 6, y=y - 4))
  box = f'0 0 {width} {height}'
  return str(
    markup.Html(element('svg', *parts, viewBox=box, xmlns='http://www.w3.org/2000/svg'))
  )


def main() -> None:
  """Prints a table."""
  flags = parse_arguments()
  results = record.begin(FORMULA, _LIBRARIES, device=jax.devices()[0].device_kind)
  session = session_lib.Session.load(flags.checkpoint)
  source = records.Source(flags.data, 'test')
  chosen = items_lib.collect(TASK, [source]).chosen
  chosen = chosen[:: 10 if flags.quick else 1]
  lines = results['lines'] = []
  print(f'{len(chosen)} sentences\nblock steps threshold   WER  passes/token  tokens/s')
  for changes in settings(BLOCKS[:1] if flags.quick else BLOCKS):
    lines.append(line := measure(session, chosen, changes))
    print(
      f'{line["block_size"]:5} {line["steps_per_block"]:5} {line["threshold"]:9} '
      f'{line["wer"]:6.1%} {line["passes_per_token"]:12.3f} {line["tokens_per_second"]:9.0f}',
      flush=True,
    )
  record.save(results | {'sentences': len(chosen)}, flags.json)
  if flags.plot:
    pathlib.Path(flags.plot).write_text(drawing(lines), encoding='utf-8')


if __name__ == '__main__':
  main()
