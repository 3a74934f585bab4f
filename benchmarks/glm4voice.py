"""Sound to tokens by GLM-4-Voice's tokenizer: time here, and memory on TPUs.

    python benchmarks/glm4voice.py [--quick] [--json FILE]

The network has the released shape and random weights, since time does not depend on them. The
log-mels are timed on one core; the whole codec on all devices here, after compiling; and the
program of a batch of whole windows is compiled for TPUs that need not exist.
"""

import time

import jax
import numpy as np
import record
from flax import linen as nn

from ttt_jax.codecs.glm4voice import encoder, features, tokenizer
from ttt_jax.codecs.glm4voice import shape as shape_lib
from ttt_jax.planning import topologies

FORMULA = 'times real time = seconds of sound / seconds taken; memory as libtpu states it'
RELEASED = shape_lib.Shape(
  d_model=1280,
  encoder_attention_heads=20,
  encoder_ffn_dim=5120,
  quantize_position=16,
  quantize_causal_block_size=200,
  quantize_vocab_size=16_384,
  pooling_kernel_size=4,
  max_source_positions=1500,
)
TOPOLOGIES = ('v5e:2x2', 'v6e:2x2', 'v5p:2x2x1')
_CLIPS = (2, 5, 10, 30, 65)  # seconds


def _sound(seconds: float) -> np.ndarray:
  noise = np.random.default_rng(0).standard_normal(int(seconds * features.SAMPLE_RATE))
  return (0.1 * noise).astype(np.float32)


def mels(repeats: int) -> float:
  """Times real time of the log-mels of whole windows."""
  wave = _sound(features.SECONDS)
  features.log_mel(wave, RELEASED.samples)
  start = time.perf_counter()
  for _ in range(repeats):
    features.log_mel(wave, RELEASED.samples)
  return repeats * features.SECONDS / (time.perf_counter() - start)


def whole(clips) -> dict[str, float]:
  """Times real time from sound to tokens, by seconds of a clip."""
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: 0.02 * rng.standard_normal(leaf.shape, np.float32),
    nn.unbox(encoder.Encoder(RELEASED).parameters()),
  )
  codec = tokenizer.Glm4Voice(RELEASED, params)
  rates = {}
  for seconds in clips:
    wave = _sound(seconds)
    codec.encode(wave, codec.sample_rate)
    start = time.perf_counter()
    codec.encode(wave, codec.sample_rate)
    rates[str(seconds)] = seconds / (time.perf_counter() - start)
    print(f'  {seconds:3} s: {rates[str(seconds)]:8.2f} times real time', flush=True)
  return rates


def on_tpus() -> dict[str, float]:
  """GiB of a device for a batch of whole windows, by topology."""
  params = nn.unbox(encoder.Encoder(RELEASED).parameters())
  needs = {}
  for name in TOPOLOGIES:
    codec = tokenizer.Glm4Voice(RELEASED, params, topologies.devices(name))
    memory = codec.lower().compile().memory_analysis()
    used = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    needs[name] = (used + memory.output_size_in_bytes) / 2**30
    print(f'  {name}: {needs[name]:.2f} GiB a device', flush=True)
  return needs


def main():
  """Runs what the command line asks for."""
  flags = record.parser(__doc__, 'one clip, and no TPUs').parse_args()
  device = jax.devices()[0].device_kind
  results = record.begin(
    FORMULA, ('jax', 'numpy', 'scipy'), devices=f'{len(jax.devices())} {device}'
  )
  results['mels'] = mels(3 if flags.quick else 20)
  print(f'log-mels, one core: {results["mels"]:.0f} times real time\nsound to tokens, by clip:')
  results['whole'] = whole(_CLIPS[:1] if flags.quick else _CLIPS)
  if not flags.quick:
    print('memory of a batch of whole windows:')
    results['tpus'] = on_tpus()
  record.save(results, flags.json)


if __name__ == '__main__':
  main()
