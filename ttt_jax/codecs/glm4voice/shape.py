"""What the config.json of a released tokenizer says of its network."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ttt_jax import json_file
from ttt_jax.codecs import codec
from ttt_jax.codecs.glm4voice import features

CONFIG = 'config.json'
PREPROCESSOR = 'preprocessor_config.json'

STRIDE = 2  # of the second convolution: log-mel frames a position

# Settings that change the tokens, and the one value of each that the network here computes.
_FIXED = {
  'activation_function': 'gelu',
  'encoder_causal_attention': False,
  'encoder_causal_convolution': True,
  'encoder_residual_source_position': None,
  'encoder_residual_target_position': None,
  'max_source_positions': features.SECONDS * features.SAMPLE_RATE // features.HOP // STRIDE,
  'num_mel_bins': features.NUM_MELS,
  'pooling_type': 'avg',
  'quantize_causal_encoder': False,
  'scale_embedding': False,
  'use_residual_adapter': False,
  'use_residual_gate': False,
}
# Those of them that the file must name: left out, they mean something else.
_NEEDED = (
  'encoder_causal_convolution',
  'max_source_positions',
  'num_mel_bins',
  'pooling_type',
)
# Settings of these parts are refused unless they are known here.
_PARTS = ('encoder_', 'pooling_', 'quantize_', 'codebook_')
# Of its training, or of what comes behind the tokens.
_INERT = (
  'codebook_gaussian_init',
  'encoder_layerdrop',
  'encoder_layers',
  'quantize_commit_coefficient',
  'quantize_ema_decay',
  'quantize_encoder_only',
  'quantize_loss_scale',
  'quantize_restart_interval',
)
# Settings of the log-mels; a folder without the file means the same.
_FEATURES = {
  'feature_size': features.NUM_MELS,
  'sampling_rate': features.SAMPLE_RATE,
  'hop_length': features.HOP,
  'n_fft': features.WINDOW,
  'chunk_length': features.SECONDS,
  'padding_value': 0.0,
  'dither': 0.0,
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """The network, under the names of its config.json.

  Attributes:
    d_model: width of the model.
    encoder_attention_heads: query heads, and as many key/value heads.
    encoder_ffn_dim: width of the feed-forward layers.
    quantize_position: layers; what comes behind them does not change the tokens.
    quantize_causal_block_size: positions that see each other, and all before them.
    quantize_vocab_size: codes.
    pooling_kernel_size: positions a token.
    max_source_positions: positions in a window.
  """

  d_model: int
  encoder_attention_heads: int
  encoder_ffn_dim: int
  quantize_position: int
  quantize_causal_block_size: int
  quantize_vocab_size: int
  pooling_kernel_size: int
  max_source_positions: int

  @property
  def samples(self) -> int:
    """Samples a token."""
    return features.HOP * STRIDE * self.pooling_kernel_size

  def tokens(self, num_samples: int) -> int:
    """Tokens of so many samples, which lie in one window."""
    return -(-num_samples // self.samples)


def read(directory: str | os.PathLike) -> Shape:
  """Reads config.json, and preprocessor_config.json where there is one.

  Raises:
    CodecError: a file is missing or damaged, a setting is missing, or asks for what the network
      here does not compute; the message names the file and the setting.
  """
  path = pathlib.Path(directory, CONFIG)
  values = _read(path)
  _refuse_others(values, path)
  preprocessor = path.with_name(PREPROCESSOR)
  if preprocessor.exists():
    _refuse_values(_read(preprocessor), _FEATURES, preprocessor)
  sizes = {}
  for field in dataclasses.fields(Shape):
    value = values.get(field.name)
    if type(value) is not int or not 1 <= value < 2**31:
      raise codec.CodecError(
        f'{path}: {field.name} is missing or no positive whole number, but {value!r}'
      )
    sizes[field.name] = value
  shape = Shape(**sizes)
  for whole, part in (
    ('d_model', 'encoder_attention_heads'),
    ('max_source_positions', 'pooling_kernel_size'),
  ):
    if sizes[whole] % sizes[part]:
      raise codec.CodecError(
        f'{path}: {whole} is {sizes[whole]}, but must be a multiple of {part}, {sizes[part]}'
      )
  return shape


def write(shape: Shape, directory: str | os.PathLike) -> None:
  """Writes a config.json that `read` reads."""
  known = {key: _FIXED[key] for key in _NEEDED}
  values = dataclasses.asdict(shape) | known | {'pooling_position': shape.quantize_position}
  text = json.dumps(values, indent=1, sort_keys=True) + '\n'
  pathlib.Path(directory, CONFIG).write_text(text, encoding='utf-8')


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    values = json_file.read(path)
  except (OSError, ValueError) as error:
    raise codec.CodecError(
      f'{path}: cannot be read ({error}); copy the whole folder of the tokenizer'
    ) from error
  if not isinstance(values, dict):
    raise codec.CodecError(f'{path}: damaged, not a JSON object; copy it again')
  return values


def _refuse_values(values: Mapping[str, Any], fixed: Mapping[str, Any], path) -> None:
  for key, fine in fixed.items():
    if key in values and values[key] != fine:
      raise codec.CodecError(
        f'{path}: {key} is {values[key]!r}, but only {fine!r} is known here'
      )


def _refuse_others(values: Mapping[str, Any], path: pathlib.Path) -> None:
  """Raises CodecError if a setting is missing, or has another value than is known here."""
  for key in _NEEDED:
    if key not in values:
      raise codec.CodecError(f'{path}: {key} is missing; is this a GLM-4-Voice tokenizer?')
  _refuse_values(values, _FIXED, path)
  sizes = [field.name for field in dataclasses.fields(Shape)]
  known = {*sizes, *_FIXED, *_INERT, 'pooling_position'}
  for key in sorted(set(values) - known):
    if key.startswith(_PARTS):
      raise codec.CodecError(f'{path}: {key} is {values[key]!r}, a setting not known here')
  position = values.get('pooling_position')
  if position != values.get('quantize_position'):
    raise codec.CodecError(
      f'{path}: pooling_position is {position!r}, but must be quantize_position, '
      f'{values.get("quantize_position")!r}'
    )
