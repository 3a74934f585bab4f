"""Finds the class of a codec: built in, or a plug-in of another distribution.

A plug-in is an entry point of the group `ttt_jax.codecs`: its name is the kind, its value
'module:Class'. docs/codecs.md has a complete one.
"""

import importlib
import json
import os
import pathlib
from importlib import metadata

from ttt_jax.codecs import codec

GROUP = 'ttt_jax.codecs'

# kind -> 'module:class'. Named, not imported, so that loading one codec does not need the
# libraries of all the others.
_BUILT_IN = {
  'mel_vq': 'ttt_jax.codecs.mel_vq:MelVQ',
  'glm4voice': 'ttt_jax.codecs.glm4voice.tokenizer:Glm4Voice',
  'mimi': 'ttt_jax.codecs.plugins.mimi:Mimi',
  'external': 'ttt_jax.codecs.external:External',
}
# What installs the libraries of those that need more than the package does.
_EXTRAS = {'mimi': "pip install 'ttt_jax[mimi]'"}

# Folders as their authors release them, without a codec.json: a key that tells by itself which
# they are, in this file of theirs.
_CONFIG = 'config.json'
_RELEASED = {'quantize_vocab_size': 'glm4voice'}


def known() -> dict[str, str]:
  """Of each kind where it comes from: 'built in', or a distribution and its class."""
  return dict.fromkeys(_BUILT_IN, 'built in') | {
    point.name: _source(point) for point in metadata.entry_points(group=GROUP)
  }


def find(kind: str) -> type[codec.Codec]:
  """The class that reads and makes codecs of a kind.

  Raises:
    CodecError: the kind is unknown, two plug-ins claim it or one claims a built-in, its class
      cannot be imported, or is no codec of this kind.
  """
  points = list(metadata.entry_points(group=GROUP, name=kind))
  sources = ', '.join(_source(point) for point in points)
  if points and kind in _BUILT_IN:
    raise codec.CodecError(
      f'kind {kind!r} is built in, but a plug-in claims it: {sources}; uninstall that'
    )
  if len(points) > 1:
    raise codec.CodecError(f'kind {kind!r} is claimed by two plug-ins: {sources}; keep one')
  if not points and kind not in _BUILT_IN:
    raise codec.CodecError(
      f'unknown kind {kind!r}; known: {", ".join(sorted(known()))}; if it is of a plug-in, '
      f'install the distribution that has the entry point {kind!r} of group {GROUP!r}'
    )
  where = points[0].value if points else _BUILT_IN[kind]
  try:
    found = _imported(where)
  except Exception as error:  # whatever a plug-in does wrong
    mend = _EXTRAS.get(kind, f'install what {sources or "it"} needs, or mend it')
    raise codec.CodecError(
      f'kind {kind!r} cannot be used: {where} cannot be imported '
      f'({type(error).__name__}: {error}); {mend}'
    ) from error
  if not (isinstance(found, type) and issubclass(found, codec.Codec)):
    raise codec.CodecError(f'kind {kind!r}: {where} is no subclass of {codec.Codec.__name__}')
  if found.kind != kind:
    raise codec.CodecError(f'kind {kind!r}: {where} says that its kind is {found.kind!r}')
  return found


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


def _source(point: metadata.EntryPoint) -> str:
  owner = point.dist.name if point.dist else 'an unnamed distribution'
  return f'{owner} ({point.value})'


def _imported(where: str):
  module, name = where.split(':')
  return getattr(importlib.import_module(module), name)


def _released(directory: pathlib.Path) -> str | None:
  """The kind of a folder of authors; None where there is a codec.json, or nothing known."""
  if (directory / codec.CONFIG_NAME).exists():
    return None
  try:
    values = json.loads((directory / _CONFIG).read_text(encoding='utf-8'))
  except (OSError, ValueError):
    return None
  keys = values if isinstance(values, dict) else ()
  return next((kind for key, kind in _RELEASED.items() if key in keys), None)
