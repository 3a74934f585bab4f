"""How soon a trained model is heard, and whether it keeps up with its own sound.

    python benchmarks/streaming.py [--checkpoint RUN] [--quick] [--json FILE]

A run of the quickstart speaks test sentences of the little world one by one, in blocks of
several sizes, and each is timed twice: streamed, to its first samples and to its end; and
whole, as without streaming, where the first samples come with the last. Everything was
compiled before; what compilation costs the very first request is told beside.
"""

import dataclasses
import statistics

import jax
import record

from data_pipelines.little_world import sums
from ttt_jax import assets, description
from ttt_jax.sampling import session as session_lib
from ttt_jax.sampling import stopwatch

FORMULA = (
  'first = seconds from the request to the first samples; factor = seconds of work / seconds '
  'of sound; smooth = seconds after which sound may be played and never waits; medians of '
  'sentences'
)
SETTINGS = ((4, 2), (8, 2), (16, 2), (26, 2))  # tokens a block, steps a block
_LIBRARIES = ('jax', 'numpy', 'scipy')
_SEED = 0


def speak(session: session_lib.Session, text: str) -> dict[str, float] | None:
  """Seconds of one streamed request, and of its compilation; None if nothing is said."""
  first, samples, smooth, rate = None, 0, 0.0, session.assets.codec.sample_rate
  with stopwatch.Stopwatch() as watch:
    for piece in session.stream(assets.SPEAK, text):
      if len(piece.wave):
        lap = watch.lap()
        first = first or lap
        smooth = max(smooth, lap.running - samples / rate)
        samples += len(piece.wave)
    last = watch.lap()
  if first is None:
    return None
  return {
    'sound': samples / rate,
    'first': first.running,
    'first_compiling': first.compiling,
    'smooth': smooth,
    'factor': last.running / (samples / rate),
    'compiling': last.compiling,
  }


def wait(session: session_lib.Session, text: str) -> float:
  """Seconds of one request that is answered whole."""
  with stopwatch.Stopwatch() as watch:
    session.reply(assets.SPEAK, text)
    return watch.lap().running


def measure(folder: str, block: int, steps: int, texts: list[str]) -> dict:
  """One line of the table."""
  sampling = description.config_of(folder).sampling
  changes = {'block_size': block, 'steps_per_block': steps, 'threshold': 0.0}
  session = session_lib.Session.load(folder, dataclasses.replace(sampling, **changes))
  cold = speak(session, texts[0])
  for text in texts:  # compiles whatever they need
    speak(session, text)
    session.reply(assets.SPEAK, text)
  streamed = [(speak(session, text), wait(session, text)) for text in texts]
  told = [(found, whole) for found, whole in streamed if found]
  return {
    'block': block,
    'steps': steps,
    'sentences': len(told),
    'sound': statistics.mean(found['sound'] for found, _ in told),
    'first': statistics.median(found['first'] for found, _ in told),
    'smooth': statistics.median(found['smooth'] for found, _ in told),
    'first_most': max(found['first'] for found, _ in told),
    'factor': statistics.median(found['factor'] for found, _ in told),
    'whole': statistics.median(whole for _, whole in told),
    'compiling': sum(found['compiling'] for found, _ in told),
    'cold': cold,
  }


def main():
  """Measures, and prints a table."""
  parser = record.parser(__doc__, 'fewer sentences, two sizes of blocks')
  parser.add_argument('--checkpoint', default='runs/quickstart/run', help='folder of a run')
  options = parser.parse_args()
  results = record.begin(FORMULA, _LIBRARIES, device=jax.devices()[0].device_kind)
  texts = sums.make_world(0, 6 if options.quick else 30, _SEED).test_strings
  rows = []
  columns = ('sound', 'first', 'smooth', 'whole', 'factor')
  print(*(f'{name:>6}' for name in ('block', 'steps', *columns)), 'cold')
  for block, steps in SETTINGS[: 2 if options.quick else None]:
    row = measure(options.checkpoint, block, steps, list(texts))
    figures = [f'{row[name]:6.3f}' for name in columns]
    cold = row['cold'] or {'first': 0.0, 'first_compiling': 0.0}
    told = f'{cold["first"]:.2f} + {cold["first_compiling"]:.2f} of compilation'
    print(f'{block:6} {steps:6}', *figures, told, flush=True)
    rows.append(row)
  record.save(results | {'rows': rows}, options.json)


if __name__ == '__main__':
  main()
