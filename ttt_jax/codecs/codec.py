"""What every codec does: waveform to one stream of token ids, and back.

A codec lives in a directory with a `codec.json`, whose `kind` says which class reads the
rest; `kinds` finds it.
"""

import abc
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ttt_jax import errors, json_file
from ttt_jax.codecs import audio_io

CONFIG_NAME = 'codec.json'


class CodecError(errors.UserError):
  """A codec's files or the ids given to it cannot be used."""


class Decoder(abc.ABC):
  """Tokens to speech as they come: `push` them, then `flush`.

  Samples that were given out never change. All of them together are those of
  `Codec.decode`, however the tokens are cut.
  """

  def __init__(self, codebook_size: int):
    """Takes the number of tokens that there are."""
    self._codebook_size = codebook_size

  @abc.abstractmethod
  def _push(self, ids: np.ndarray) -> np.ndarray:
    """`[T]` int32 checked ids, T >= 0 -> `[S]` float32 samples."""

  @abc.abstractmethod
  def _flush(self) -> np.ndarray:
    """The other samples, `[S]` float32; begins anew."""

  def push(self, ids: np.ndarray) -> np.ndarray:
    """The samples that are final once these tokens are known too.

    Args:
      ids: `[T]` integer ids in `[0, codebook_size)`; T may be 0.

    Returns:
      `[S]` float32 samples; S may be 0.

    Raises:
      CodecError: `ids` is not `[T]` integers, or one is outside the codebook.
    """
    return self._push(_checked(ids, self._codebook_size))

  def flush(self) -> np.ndarray:
    """The samples that are still to come; tokens pushed later are another sound.

    Returns:
      `[S]` float32 samples; S may be 0.
    """
    return self._flush()


class Codec(abc.ABC):
  """Turns speech into ids in `[0, codebook_size)` and ids into speech.

  A kind defines `_encode` if it can 'encode', `_decode` if it can 'decode', and `_decoder` if
  it can 'stream'; of `_decoder`, `_decode` can be made, as it is by default. One that is
  faster with several sounds at a time defines `_encode_batch` too.

  Attributes:
    kind: the name under which `kinds.load_codec` finds the class.
    abilities: what it can do, of 'encode', 'decode' and 'stream' (decode as tokens come).
    sample_rate: samples a second that `decode` makes.
    frame_rate: tokens a second.
    codebook_size: how many different tokens there are.
    fingerprint: short hex string of all that gives the tokens their meaning. Token files
      and checkpoints made with one codec may only be used with the same fingerprint.
  """

  kind: str
  abilities: frozenset[str]
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

  def _encode(self, wave: np.ndarray) -> np.ndarray:
    """`[S]` float32 checked samples at `self.sample_rate` -> `[T]` ids."""
    raise NotImplementedError

  def _encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Checked samples as for `_encode` of each sound -> `[T]` ids of each."""
    return [self._encode(wave) for wave in waves]

  def _decode(self, ids: np.ndarray) -> np.ndarray:
    """`[T]` int32 checked ids, T > 0 -> `[S]` float32 samples at `self.sample_rate`."""
    decoder = self._decoder()
    return np.concatenate([decoder.push(ids), decoder.flush()])

  def _decoder(self) -> Decoder:
    raise NotImplementedError

  def require(self, ability: str) -> None:
    """Raises CodecError if this codec lacks an ability."""
    if ability not in self.abilities:
      able = ', '.join(sorted(self.abilities)) or 'nothing'
      raise CodecError(f'a codec of kind {self.kind!r} cannot {ability} (it can: {able})')

  def encode(self, wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Speech to tokens.

    Args:
      wave: `[S]` float32 samples.
      sample_rate: samples a second of `wave`; any rate, resampled here.

    Returns:
      `[T]` int32 ids.

    Raises:
      AudioError: `wave` is not a waveform.
      CodecError: this codec cannot encode.
    """
    self.require('encode')
    audio_io.check_wave(wave, 'wave to encode')
    wave = audio_io.resample(wave, sample_rate, self.sample_rate)
    return self._encode(wave).astype(np.int32)

  def encode_batch(
    self, waves: Sequence[np.ndarray], sample_rates: Sequence[int]
  ) -> list[np.ndarray]:
    """Several sounds to tokens: for each of them those of `encode`, whatever is beside it.

    Args:
      waves: `[S]` float32 samples of each.
      sample_rates: samples a second of each.

    Returns:
      `[T]` int32 ids of each.

    Raises:
      AudioError: one is not a waveform; the message tells its number.
      CodecError: this codec cannot encode.
      ValueError: there are not as many rates as waves.
    """
    self.require('encode')
    for number, (wave, _) in enumerate(zip(waves, sample_rates, strict=True)):
      audio_io.check_wave(wave, f'wave {number} to encode')
    ready = [
      audio_io.resample(wave, rate, self.sample_rate) for wave, rate in zip(waves, sample_rates)
    ]
    return [ids.astype(np.int32) for ids in self._encode_batch(ready)]

  def decode(self, ids: np.ndarray) -> np.ndarray:
    """Tokens to speech.

    Args:
      ids: `[T]` integer ids in `[0, codebook_size)`; T may be 0.

    Returns:
      `[S]` float32 samples at `self.sample_rate`, empty for no ids.

    Raises:
      CodecError: this codec cannot decode, `ids` is not `[T]` integers, or one is outside the
        codebook.
    """
    self.require('decode')
    ids = _checked(ids, self.codebook_size)
    return self._decode(ids) if ids.size else np.zeros(0, np.float32)

  def decoder(self) -> Decoder:
    """For tokens that come little by little.

    Raises:
      CodecError: this codec decodes whole sounds only, or none.
    """
    self.require('stream')
    return self._decoder()


def _checked(ids: np.ndarray, codebook_size: int) -> np.ndarray:
  """`ids` as int32; raises CodecError if they are not `[T]` ids of the codebook."""
  ids = np.asarray(ids)
  if ids.ndim != 1:
    raise CodecError(f'ids to decode: expected shape [T], got {list(ids.shape)}')
  if ids.size and not np.issubdtype(ids.dtype, np.integer):
    raise CodecError(f'ids to decode: expected integers, got {ids.dtype}')
  bad = np.flatnonzero((ids < 0) | (ids >= codebook_size))
  if bad.size:
    raise CodecError(
      f'ids to decode: id {ids[bad[0]]} at position {bad[0]} is outside'
      f' [0, {codebook_size}); special tokens and text ids are not audio'
    )
  return ids.astype(np.int32)


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
    config = json_file.read(path)
  except OSError as error:
    raise CodecError(f'{path}: cannot be read ({error}); is this a codec directory?') from error
  except ValueError as error:
    raise CodecError(f'{path}: damaged, not JSON ({error}); make the codec again') from error
  if not isinstance(config, dict) or not isinstance(config.get('kind'), str):
    raise CodecError(f'{path}: damaged, names no `kind`; make the codec again')
  return config
