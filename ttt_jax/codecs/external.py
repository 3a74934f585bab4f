"""A codec that lives elsewhere: its tokens are known, it cannot be called."""

import hashlib
import json
import os
import pathlib

from ttt_jax.codecs import codec


class External(codec.Codec):
  """Stands in for the codec of a model whose audio was tokenised by another program."""

  kind = 'external'
  abilities = frozenset()

  def __init__(self, name: str, codebook_size: int):
    """Takes the codec's name, for messages, and its number of codes."""
    self.name, self._codebook_size = name, codebook_size

  @property
  def sample_rate(self) -> int:
    """Not known: raises CodecError."""
    raise self._missing()

  @property
  def frame_rate(self) -> float:
    """Not known: raises CodecError."""
    raise self._missing()

  @property
  def codebook_size(self) -> int:
    """How many different tokens there are."""
    return self._codebook_size

  @property
  def fingerprint(self) -> str:
    """Of the size alone: all that is known of what the tokens mean."""
    text = f'external {self.codebook_size}'
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def save(self, directory: str | os.PathLike) -> None:
    """Writes `codec.json`."""
    content = {'kind': self.kind, 'name': self.name, 'codebook_size': self.codebook_size}
    text = json.dumps(content, indent=1) + '\n'
    pathlib.Path(directory, codec.CONFIG_NAME).write_text(text, encoding='utf-8')

  @classmethod
  def load(cls, directory: str | os.PathLike) -> 'External':
    """Reads what `save` wrote."""
    values = codec.read_config(directory)
    name, size = values.get('name'), values.get('codebook_size')
    if not isinstance(name, str) or type(size) is not int or size < 1:
      path = pathlib.Path(directory, codec.CONFIG_NAME)
      raise codec.CodecError(
        f'{path}: damaged: needs a `name` and a `codebook_size`; make the codec again'
      )
    return cls(name, size)

  def require(self, ability: str) -> None:
    """Raises CodecError: it can do nothing, and the message says what to do about it."""
    del ability
    raise self._missing()

  def _missing(self) -> codec.CodecError:
    return codec.CodecError(
      f'the codec {self.name!r} of these audio tokens is not here, so that sound can be '
      'neither read nor written: convert the model again with --codec=FOLDER'
    )
