"""What converting a checkpoint costs: seconds, and peak memory beside the checkpoint's bytes.

    python benchmarks/conversion.py [--quick] [--json FILE] [--folder DIR]

Writes a random checkpoint of Qwen2.5's shape (3 B parameters in bfloat16; 0.5 B with --quick)
in Hugging Face's format, converts it by `ttt-convert from-hf` with 16,384 audio tokens more,
and back by `ttt-convert to-hf`, each in a process of its own.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import ml_dtypes
import numpy as np
import record

from configs import base
from ttt_jax import config as config_lib
from ttt_jax.conversion import families, table, tensors

FORMULA = 'ratio = peak resident memory of the process / bytes of the tensors that it reads'
WORDS = 151_643  # of the tokenizer
CODES = 16_384
ROWS = 151_936
SIZES = {  # hidden, feed-forward, layers, heads, key/value heads
  '0.5B': (896, 4864, 24, 14, 2),
  '3B': (2048, 11_008, 36, 16, 2),
}
_LIBRARIES = ('jax', 'orbax-checkpoint', 'safetensors', 'numpy')


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  """Reads the command line."""
  parser = record.parser(__doc__, 'the model of 0.5 B parameters')
  parser.add_argument('--folder', help='where the checkpoints lie meanwhile (three of them)')
  return parser.parse_args(arguments)


def write_source(directory: pathlib.Path, size: str) -> tuple[int, int]:
  """A random checkpoint, tensor by tensor; its parameters and its bytes."""
  width, mlp, layers, heads, kv_heads = SIZES[size]
  values = {
    'model_type': 'qwen2',
    'vocab_size': ROWS,
    'hidden_size': width,
    'intermediate_size': mlp,
    'num_hidden_layers': layers,
    'num_attention_heads': heads,
    'num_key_value_heads': kv_heads,
    'tie_word_embeddings': True,
    'rope_theta': 1e6,
    'torch_dtype': 'bfloat16',
  }
  directory.mkdir(parents=True)
  (directory / families.CONFIG).write_text(json.dumps(values))
  defaults = config_lib.from_config_dict(base.get_config()).model
  model, _ = families.model_from(values, defaults, 'config.json')
  rng = np.random.default_rng(0)
  noise = (0.02 * rng.standard_normal(1_000_003, np.float32)).astype(ml_dtypes.bfloat16)
  shapes = {
    row.theirs.format(layer=layer): row.their_shape
    for row in table.rows(model, ROWS)
    for layer in range(model.layers if row.stacked else 1)
  }

  def make(shape):
    # Noise that repeats is random enough here, and fast.
    return np.resize(np.roll(noise, int(rng.integers(len(noise)))), shape)

  sizes = {name: 2 * int(np.prod(shape)) for name, shape in shapes.items()}
  makers = ((name, lambda shape=shape: make(shape)) for name, shape in shapes.items())
  tensors.write(directory, makers, sizes, 2**31)
  (directory / 'tokenizer.json').write_text(json.dumps(_tokenizer()))
  return sum(sizes.values()) // 2, sum(sizes.values())


def _tokenizer() -> dict:
  """As many words as Qwen2.5's tokenizer has, and its marks of turns."""
  marks = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
  flags = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}
  return {
    'version': '1.0',
    'added_tokens': [
      {'id': WORDS + i, 'content': mark, 'special': True, **flags}
      for i, mark in enumerate(marks)
    ],
    'model': {'type': 'BPE', 'vocab': {f'word{i}': i for i in range(WORDS)}, 'merges': []},
  }


def run(name: str, arguments: list[str], read: int) -> dict:
  """Runs the converter; seconds, peak memory and its ratio to the bytes it `read`."""
  command = [sys.executable, '-m', 'ttt_jax.cli.convert', *arguments]
  begin = time.monotonic()
  with subprocess.Popen(command, env=os.environ | {'JAX_PLATFORMS': 'cpu'}) as process:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    sys.exit(f'{name} failed')
  peak = usage.ru_maxrss * 1024
  seconds = time.monotonic() - begin
  return {'step': name, 'seconds': seconds, 'peak_bytes': peak, 'ratio': peak / read}


def main():
  """Runs both directions."""
  arguments = parse_arguments()
  results = record.begin(FORMULA, _LIBRARIES)
  size = '0.5B' if arguments.quick else '3B'
  folder = pathlib.Path(tempfile.mkdtemp(dir=arguments.folder))
  try:
    parameters, source_bytes = write_source(folder / 'source', size)
    ours = [f'--source={folder / "source"}', f'--out={folder / "ours"}']
    theirs = [f'--checkpoint={folder / "ours"}', f'--out={folder / "theirs"}']
    rows = [run('from-hf', ['from-hf', *ours, f'--audio-codebook={CODES}'], source_bytes)]
    written = sum(p.stat().st_size for p in (folder / 'ours').rglob('*') if p.is_file())
    rows.append(run('to-hf', ['to-hf', *theirs], source_bytes))
  finally:
    shutil.rmtree(folder)
  print(f'{parameters / 1e9:.2f} B parameters, {source_bytes / 2**30:.2f} GiB in bfloat16')
  print(f'{"":8} {"seconds":>8} {"peak GiB":>9} {"ratio":>6}')
  for row in rows:
    peak = row['peak_bytes'] / 2**30
    print(f'{row["step"]:8} {row["seconds"]:8.1f} {peak:9.2f} {row["ratio"]:6.2f}')
  results |= {'parameters': parameters, 'source_bytes': source_bytes}
  record.save(results | {'written_bytes': written, 'rows': rows}, arguments.json)


if __name__ == '__main__':
  main()
