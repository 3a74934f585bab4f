"""Settings of a model, from Hugging Face's config.json and to it: Qwen2, Qwen3, Llama."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ttt_jax import config as config_lib
from ttt_jax import json_file
from ttt_jax.conversion import table

# model_type -> the switches of `config.Model`, and the name of its classes.
FAMILIES = {
  'qwen2': ({'qkv_bias': True, 'qk_norm': False}, 'Qwen2'),
  'qwen3': ({'qkv_bias': False, 'qk_norm': True}, 'Qwen3'),
  'llama': ({'qkv_bias': False, 'qk_norm': False}, 'Llama'),
}

# What a config.json may ask for that our network does not do, and the values that are fine.
_UNKNOWN_HERE = {
  'hidden_act': ('silu',),
  'mlp_bias': (False,),
  'attention_bias': (False,),
  'use_sliding_window': (False,),
  'partial_rotary_factor': (1, 1.0),
  'quantization_config': (None,),
}

CONFIG = 'config.json'


def read_config(directory: str | pathlib.Path) -> dict[str, Any]:
  """The config.json of a checkpoint.

  Raises:
    ConversionError: there is none, or it is damaged.
  """
  path = pathlib.Path(directory, CONFIG)
  if not path.parent.is_dir():
    raise table.ConversionError(
      f'{directory} is not a folder: download the checkpoint first, say by '
      f'`hf download OWNER/NAME --local-dir FOLDER`'
    )
  try:
    values = json_file.read(path)
  except (OSError, ValueError) as error:
    raise table.ConversionError(f'{path}: not a config.json ({error})') from error
  if not isinstance(values, dict):
    raise table.ConversionError(f'{path}: not a config.json')
  return values


def model_from(
  values: Mapping[str, Any], base: config_lib.Model, name: str
) -> tuple[config_lib.Model, int]:
  """The model that a config.json describes, and the rows of its embedding.

  Older and newer files are read: `rope_theta` and `rope_scaling`, or `rope_parameters`.

  Args:
    values: the file's content.
    base: gives what is not of the checkpoint: how the model is computed, and the padding of
      its vocabulary.
    name: of the file, for messages.

  Raises:
    ConversionError: the family is unknown, a value is missing, or asks for what the network
      does not do.
  """
  values = {key: value for key, value in values.items() if value is not None}
  family = values.get('model_type')
  if not isinstance(family, str) or family not in FAMILIES:
    known = ', '.join(FAMILIES)
    raise table.ConversionError(f'{name}: model_type is {family!r}; known: {known}')
  for key, fine in _UNKNOWN_HERE.items():
    if (family, key) == ('qwen2', 'attention_bias'):
      continue  # transformers does not ask: Qwen2 has the biases that `qkv_bias` names
    if key in values and values[key] not in fine:
      raise table.ConversionError(f'{name}: {key} is {values[key]!r}, which is not known here')
  layers = values.get('layer_types', [])
  if not isinstance(layers, list) or any(kind != 'full_attention' for kind in layers):
    raise table.ConversionError(f'{name}: layer_types has other attention than full_attention')

  def needed(key: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
      raise table.ConversionError(f'{name}: {key} is missing or no positive whole number')
    return value

  tied = values.get('tie_word_embeddings', False)
  if not isinstance(tied, bool):
    raise table.ConversionError(f'{name}: tie_word_embeddings is {tied!r}, not true or false')
  width, heads = needed('hidden_size'), needed('num_attention_heads')
  head_width = 128 if family == 'qwen3' else width // heads
  try:
    model = config_lib.Model(
      layers=needed('num_hidden_layers'),
      width=width,
      heads=heads,
      kv_heads=needed('num_key_value_heads', heads),
      head_width=needed('head_dim', head_width),
      mlp_width=needed('intermediate_size'),
      **_rope(values, name),
      norm_epsilon=float(values.get('rms_norm_eps', 1e-6)),
      **FAMILIES[family][0],
      tied=tied,
      vocabulary_multiple=base.vocabulary_multiple,
      **{key: getattr(base, key) for key in config_lib.HOW_COMPUTED},
    )
  except (TypeError, ValueError, OverflowError) as error:
    raise table.ConversionError(f'{name}: {error}') from error
  return model, needed('vocab_size')


def _rope(values: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Our keys of rotary positions."""
  rope = {**values.get('rope_scaling', {}), **values.get('rope_parameters', {})}
  kind = rope.get('rope_type', rope.get('type', 'default'))
  ours = {
    'rope_theta': float(rope.get('rope_theta', values.get('rope_theta', 10_000))),
    'rope_scaling': 'none',
    'rope_factor': 1.0,
    'rope_low_turns': 1.0,
    'rope_high_turns': 4.0,
    'rope_original_length': 8192,
  }
  try:
    if kind == 'linear':
      ours |= {'rope_scaling': kind, 'rope_factor': float(rope['factor'])}
    elif kind == 'llama3':
      ours |= {
        'rope_scaling': kind,
        'rope_factor': float(rope['factor']),
        'rope_low_turns': float(rope['low_freq_factor']),
        'rope_high_turns': float(rope['high_freq_factor']),
        'rope_original_length': int(rope['original_max_position_embeddings']),
      }
    elif kind != 'default':
      raise table.ConversionError(f'{name}: rope_type {kind!r} is not known here')
  except KeyError as error:
    raise table.ConversionError(f'{name}: rope_type {kind!r} needs {error}') from error
  return ours


def family_of(model: config_lib.Model) -> str:
  """The model_type of a model.

  Raises:
    ConversionError: no family has these switches.
  """
  for family, (switches, _) in FAMILIES.items():
    if all(getattr(model, key) == value for key, value in switches.items()):
      return family
  raise table.ConversionError(
    'no family of transformers has model.qkv_bias and model.qk_norm at once'
  )


def config_of(
  model: config_lib.Model, rows: int, dtype: str, turn_end: int, length: int
) -> dict[str, Any]:
  """The config.json of a model, as newer and older transformers read it.

  Args:
    model: its settings.
    rows: of the embedding over there.
    dtype: of the tensors.
    turn_end: id that ends a turn.
    length: positions that the model was trained on.
  """
  family = family_of(model)
  scaling = None
  if model.rope_scaling != 'none':
    scaling = {'rope_type': model.rope_scaling, 'factor': model.rope_factor}
  if model.rope_scaling == 'llama3':
    scaling |= {
      'low_freq_factor': model.rope_low_turns,
      'high_freq_factor': model.rope_high_turns,
      'original_max_position_embeddings': model.rope_original_length,
    }
  parameters = {'rope_theta': model.rope_theta, **(scaling or {'rope_type': 'default'})}
  return {
    'architectures': [FAMILIES[family][1] + 'ForCausalLM'],
    'model_type': family,
    'vocab_size': rows,
    'hidden_size': model.width,
    'intermediate_size': model.mlp_width,
    'num_hidden_layers': model.layers,
    'num_attention_heads': model.heads,
    'num_key_value_heads': model.kv_heads,
    'head_dim': model.head_width,
    'hidden_act': 'silu',
    'rms_norm_eps': model.norm_epsilon,
    'tie_word_embeddings': model.tied,
    'rope_theta': model.rope_theta,
    'rope_scaling': scaling,
    'rope_parameters': parameters,
    'max_position_embeddings': max(length, 32_768),
    'bos_token_id': None,
    'eos_token_id': turn_end,
    'dtype': dtype,
    'torch_dtype': dtype,
  }
