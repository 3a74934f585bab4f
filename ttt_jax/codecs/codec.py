"""What every codec does: waveform to one stream of token ids, and back.

A codec lives in a directory with a `codec.json`, whose `kind` says which class reads the
rest. New kinds are added to `_KINDS`.
"""

import abc
import importlib
import json
import os
import pathlib
from typing import Any, Self

import numpy as np

from ttt_jax import errors
from ttt_jax.codecs import audio_io

CONFIG_NAME = 'codec.json'

# kind -> 'module:class'. Named, not imported, so that loading one codec does not need the
# libraries of all the others.
_KINDS = {
  'mel_vq': 'ttt_jax.codecs.mel_vq:MelVQ',
  'external': 'ttt_jax.codecs.external:External',
}


class CodecError(errors.UserError):
  """A codec's files or the ids given to it cannot be used."""


class Codec(abc.ABC):
  """Turns speech into ids in `[0, codebook_size)` and ids into speech.

  Attributes:
    kind: the name under which `load_codec` finds the class.
    sample_rate: samples a second that `decode` makes.
    frame_rate: tokens a second.
    codebook_size: how many different tokens there are.
    fingerprint: short hex string of all that gives the tokens their meaning. Token files
      and checkpoints made with one codec may only be used with the same fingerprint.
  """

  kind: str
  sample_rate: int

  @property
  @abc.abstractmethod
  def frame_rate(self) -> float:
    """Tokens a second."""

  @property
  @abc.abstractmethod
  def codebook_size(self) -> int:
    """How many different tokens there are."""

  @property
  @abc.abstractmethod
  def fingerprint(self) -> str:
    """Short hex string, the same in every process for the same codec."""

  @abc.abstractmethod
  def save(self, directory: str | os.PathLike) -> None:
    """Writes the codec into `directory`, which is made if needed."""

  @classmethod
  @abc.abstractmethod
  def load(cls, directory: str | os.PathLike) -> Self:
    """Reads what `save` wrote. Raises CodecError naming the file that is at fault."""

  @abc.abstractmethod
  def _encode(self, wave: np.ndarray) -> np.ndarray:
    """`[S]` float32 checked samples at `self.sample_rate` -> `[T]` ids."""

  @abc.abstractmethod
  def _decode(self, ids: np.ndarray) -> np.ndarray:
    """`[T]` int32 checked ids, T > 0 -> `[S]` float32 samples at `self.sample_rate`."""

  def encode(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Speech to tokens.

    Args:
      wave: `[S]` float32 samples.
      sample_rate: samples a second of `wave`; any rate, resampled here.

    Returns:
      `[T]` int32 ids.

    Raises:
      AudioError: `wave` is not a waveform.
    """
    audio_io.check_wave(wave, 'wave to encode')
    wave = audio_io.resample(wave, sample_rate, self.sample_rate)
    return self._encode(wave).astype(np.int32)

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Tokens to speech.

    Args:
      ids: `[T]` integer ids in `[0, codebook_size)`; T may be 0.

    Returns:
      `[S]` float32 samples at `self.sample_rate`, empty for no ids.

    Raises:
      CodecError: `ids` is not `[T]` integers, or one is outside the codebook.
    """
    ids = np.asarray(ids)
    if ids.ndim != 1:
      raise CodecError(f'ids to decode: expected shape [T], got {list(ids.shape)}')
    if not ids.size:
      return np.zeros(0, np.float32)
    if not np.issubdtype(ids.dtype, np.integer):
      raise CodecError(f'ids to decode: expected integers, got {ids.dtype}')
    bad = np.flatnonzero((ids < 0) | (ids >= self.codebook_size))
    if bad.size:
      raise CodecError(
        f'ids to decode: id {ids[bad[0]]} at position {bad[0]} is outside'
        f' [0, {self.codebook_size}); special tokens and text ids are not audio'
      )
    return self._decode(ids.astype(np.int32))


def read_config(directory: str | os.PathLike) -> dict[str, Any]:
  """Reads a codec directory's `codec.json`.

  Args:
    directory: the codec's directory.

  Returns:
    The file's JSON object.

  Raises:
    CodecError: the file is missing, not JSON, or has no string `kind`.
  """
  path = pathlib.Path(directory) / CONFIG_NAME
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except OSError as error:
    raise CodecError(f'{path}: cannot be read ({error}); is this a codec directory?') from error
  except ValueError as error:
    raise CodecError(f'{path}: damaged, not JSON ({error}); make the codec again') from error
  if not isinstance(config, dict) or not isinstance(config.get('kind'), str):
    raise CodecError(f'{path}: damaged, names no `kind`; make the codec again')
  return config


def load_codec(directory: str | os.PathLike) -> Codec:
  """Loads whatever kind of codec `directory` holds.

  Args:
    directory: where `Codec.save` wrote.

  Returns:
    The codec.

  Raises:
    CodecError: a file is missing or damaged, or the kind is unknown.
  """
  kind = read_config(directory)['kind']
  if kind not in _KINDS:
    raise CodecError(
      f'{pathlib.Path(directory) / CONFIG_NAME}: unknown kind {kind!r};'
      f' known: {", ".join(sorted(_KINDS))}'
    )
  module, name = _KINDS[kind].split(':')
  return getattr(importlib.import_module(module), name).load(directory)
