"""Finds the class of a codec: built in, or a plug-in of another distribution.

A plug-in is an entry point of the group `ttt_jax.codecs`: its name is the kind, its value
'module:Class'. docs/codecs.md has a complete one.
"""

import os
import pathlib

from ttt_jax import json_file, plugins
from ttt_jax.codecs import codec

GROUP = 'ttt_jax.codecs'

_KINDS = plugins.Kinds(
  GROUP,
  codec.Codec,
  codec.CodecError,
  built_in={
    'mel_vq': 'ttt_jax.codecs.mel_vq:MelVQ',
    'glm4voice': 'ttt_jax.codecs.glm4voice.tokenizer:Glm4Voice',
    'mimi': 'ttt_jax.codecs.plugins.mimi:Mimi',
    'external': 'ttt_jax.codecs.external:External',
  },
  extras={'mimi': "pip install 'ttt_jax[mimi]'"},
)
known, find = _KINDS.known, _KINDS.find

# Folders as their authors release them, without a codec.json: a key that tells by itself which
# they are, in this file of theirs.
_CONFIG = 'config.json'
_RELEASED = {'quantize_vocab_size': 'glm4voice'}


def load_codec(directory: str | os.PathLike) -> codec.Codec:
  """Loads whatever kind of codec `directory` holds.

  Args:
    directory: where `Codec.save` wrote, or the folder of GLM-4-Voice's tokenizer as it is
      released.

  Returns:
    The codec.

  Raises:
    CodecError: a file is missing or damaged, or the kind cannot be found.
  """
  released = _released(pathlib.Path(directory))
  if released:
    return find(released).from_released(directory)
  kind = codec.read_config(directory)['kind']
  try:
    found = find(kind)
  except codec.CodecError as error:
    path = pathlib.Path(directory, codec.CONFIG_NAME)
    raise codec.CodecError(f'{path}: {error}') from error
  return found.load(directory)


def _released(directory: pathlib.Path) -> str | None:
  """The kind of a folder of authors; None where there is a codec.json, or nothing known."""
  if (directory / codec.CONFIG_NAME).exists():
    return None
  try:
    values = json_file.read(directory / _CONFIG)
  except (OSError, ValueError):
    return None
  keys = values if isinstance(values, dict) else ()
  return next((kind for key, kind in _RELEASED.items() if key in keys), None)
