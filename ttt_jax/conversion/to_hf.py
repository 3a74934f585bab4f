"""From the folder of a run to a folder that transformers loads.

It is a plain checkpoint of its family, for text. With `trust_remote_code=True` the Python files
in `exported/`, which travel with it, add the hybrid mask and a `generate` that alternates text
and audio.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, description, folders, parameters
from ttt_jax import config as config_lib
from ttt_jax.conversion import families, from_hf, table, tensors, tokenizer_files

SHARD_BYTES = 2 * 2**30
_CODE = pathlib.Path(__file__).with_name('exported')
_FILES = ('configuration_ttt.py', 'modeling_ttt.py', 'tokenization_ttt.py')
# Settings that the `generate` of an export knows.
_SAMPLING = (
  *('block_size', 'steps_per_block', 'guidance', 'text_temperature', 'audio_temperature'),
  *('max_text', 'max_audio'),
)
# What it does not know, and as with what it decodes.
_FIXED = {'order': 'confidence', 'threshold': 0.0, 'top_k': 0, 'top_p': 1.0}


def convert(
  source: str | pathlib.Path,
  out: str | pathlib.Path,
  dtype: str | None = None,
  shard_bytes: int = SHARD_BYTES,
) -> None:
  """Writes the latest step of the run in `source` as a Hugging Face checkpoint.

  Args:
    source: folder of a run.
    out: a new folder.
    dtype: of the tensors; None keeps that of the parameters.
    shard_bytes: of a file; as much is held in memory at a time.

  Raises:
    UserError: there is no run, no family of transformers has such a model, or `out` cannot
      be written.
  """
  config = description.config_of(source)
  step = checkpoint.verified(source, 'params')
  assets = assets_lib.load(pathlib.Path(source, assets_lib.DIRECTORY))
  model, size = config.model, assets.vocabulary.size
  dtype = dtype or str(np.dtype(parameters.shapes(source, step)['embedding'].dtype))
  kind = from_hf.DTYPES[dtype]
  read = functools.partial(parameters.read, source, step)
  sizes = {name: n * kind.itemsize for name, n in table.sizes(model, size).items()}
  content = families.config_of(
    model, size, dtype, assets.vocabulary.turn_end, config.data.row_length
  )
  for name, value in _FIXED.items():
    if (set_to := getattr(config.sampling, name)) != value:
      logging.warning(
        "the export's generate does not know sampling.%s=%r, and decodes as with %r",
        *(name, set_to, value),
      )
  with folders.new(out) as staging:
    padding = tokenizer_files.write(staging, assets.tokenizer, assets.vocabulary)
    _write_json(staging / 'config.json', content | _own(config, assets, padding))
    ends = {'eos_token_id': assets.vocabulary.turn_end, 'pad_token_id': padding}
    _write_json(staging / 'generation_config.json', ends)
    for name in _FILES:
      shutil.copyfile(_CODE / name, staging / name)
    about = description.of(config, assets.vocabulary.fingerprint)
    description.write(staging / from_hf.OWN, about, assets)
    tensors.write(staging, _cast(read, model, size, kind, len(sizes)), sizes, shard_bytes)


def _own(config: config_lib.Config, assets: assets_lib.Assets, padding: int) -> dict[str, Any]:
  """What config.json says beyond the family's: for the code that travels with it."""
  family = families.FAMILIES[families.family_of(config.model)][1]
  return {
    'pad_token_id': padding,
    'auto_map': {
      'AutoConfig': f'configuration_ttt.TtT{family}Config',
      'AutoModelForCausalLM': f'modeling_ttt.TtT{family}ForCausalLM',
    },
    'ttt': {
      'vocabulary': dataclasses.asdict(assets.vocabulary),
      'mask': dataclasses.asdict(config.mask),
      'sampling': {name: getattr(config.sampling, name) for name in _SAMPLING},
    },
  }


def _cast(read: Callable, model: config_lib.Model, size: int, kind: np.dtype, total: int):
  """Names and makers of the tensors, cast, under a bar of progress."""
  bar = tqdm.tqdm(total=total, desc='convert', unit='tensor')
  for name, make in table.to_theirs(read, model, size):

    def cast(make=make) -> np.ndarray:
      bar.update()
      return make().astype(kind, copy=False)

    yield name, cast
    del make, cast
  bar.close()


def _write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  path.write_text(json.dumps(content, indent=2) + '\n', encoding='utf-8')
