"""Kyutai's Mimi (arXiv 2410.00037) through transformers, its codebooks laid out as one stream.

Mimi describes each frame of 80 ms by several codes, of which each refines what the ones before
it left over. Alone, the first says what was said and little of how it sounds, so a stream of it
could hardly be decoded. Here a frame is a run of tokens instead, one a level:

    id = level * codes + code,   levels 0, 1, ..., levels - 1, then the next frame

so that each id has one meaning, and sound can be made of the ids. Eight levels, as in Moshi,
are 100 tokens a second.
"""

import functools
import hashlib
import json
import os
import pathlib
from typing import Self

import numpy as np
import torch
import transformers

from ttt_jax.codecs import codec

LEVELS = 8


class Mimi(codec.Codec):
  """Encodes and decodes whole sounds, on torch's default device. See the module."""

  kind = 'mimi'
  abilities = frozenset({'encode', 'decode'})

  def __init__(self, model: transformers.MimiModel, levels: int):
    """Puts a codec together; see `load` and `from_released`.

    Args:
      model: both halves of it.
      levels: codebooks in use, the first ones.

    Raises:
      CodecError: the model lacks a half, or has fewer codebooks.
    """
    if model.encoder is None or model.decoder is None:
      raise codec.CodecError('this Mimi is one half of a model; take the whole one')
    most = model.config.num_quantizers
    if not model.config.num_semantic_quantizers <= levels <= most:
      raise codec.CodecError(f'levels is {levels}, but this Mimi has codebooks 1 to {most}')
    self._model, self._levels = model.eval().to(torch.get_default_device()), levels

  @property
  def sample_rate(self) -> int:
    """Samples a second that it reads and makes."""
    return self._model.config.sampling_rate

  @property
  def frame_rate(self) -> float:
    """Tokens a second: frames times levels."""
    return self._model.config.frame_rate * self._levels

  @property
  def codebook_size(self) -> int:
    """How many different tokens there are, of all levels."""
    return self._model.config.codebook_size * self._levels

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of the levels and of all tensors.

    Their names are left out, since versions of transformers do not agree on them.
    """
    tensors = sorted(
      hashlib.sha256(f'{list(one.shape)}'.encode() + one.cpu().numpy().tobytes()).digest()
      for one in self._model.state_dict().values()
    )
    digest = hashlib.sha256(f'{self.kind} {self._levels}'.encode() + b''.join(tensors))
    return digest.hexdigest()[:16]

  @torch.no_grad()
  def _encode(self, wave: np.ndarray) -> np.ndarray:
    samples = torch.as_tensor(wave, device=self._model.device)[None, None]
    codes = (
      self._model.encode(samples, num_quantizers=self._levels).audio_codes[0].cpu().numpy()
    )
    offsets = np.arange(self._levels)[:, None] * self._model.config.codebook_size
    return (codes + offsets).T.reshape(-1)

  @torch.no_grad()
  def _decode(self, ids: np.ndarray) -> np.ndarray:
    """As the base class says; a last frame that lacks levels is left out.

    Raises:
      CodecError: a token is not of the level whose turn it is.
    """
    size = self._model.config.codebook_size
    turns = np.arange(len(ids)) % self._levels
    bad = np.flatnonzero(ids // size != turns)
    if bad.size:
      raise codec.CodecError(
        f'ids to decode: id {ids[bad[0]]} at position {bad[0]} is of level'
        f' {ids[bad[0]] // size}, where one of level {turns[bad[0]]} must stand; each frame has'
        f' its {self._levels} levels in order'
      )
    whole = len(ids) - len(ids) % self._levels
    if not whole:
      return np.zeros(0, np.float32)
    codes = (ids[:whole] % size).reshape(-1, self._levels).T
    given = torch.as_tensor(codes, dtype=torch.long, device=self._model.device)[None]
    return self._model.decode(given).audio_values[0, 0].float().cpu().numpy()

  def save(self, directory: str | os.PathLike) -> None:
    """Writes `codec.json` and the model, in transformers' format, into `directory`."""
    self._model.save_pretrained(directory)
    config = {'kind': self.kind, 'levels': self._levels, 'fingerprint': self.fingerprint}
    text = json.dumps(config, indent=2) + '\n'
    pathlib.Path(directory, codec.CONFIG_NAME).write_text(text, encoding='utf-8')

  @classmethod
  def load(cls, directory: str | os.PathLike) -> Self:
    """Reads what `save` wrote.

    Raises:
      CodecError: a file is missing, damaged, or does not belong to the others.
    """
    config = codec.read_config(directory)
    path = pathlib.Path(directory, codec.CONFIG_NAME)
    if not isinstance(config.get('levels'), int):
      raise codec.CodecError(f'{path}: damaged, names no `levels`; make the codec again')
    loaded = cls.from_released(directory, config['levels'])
    if config.get('fingerprint') != loaded.fingerprint:
      raise codec.CodecError(
        f'{path}: its fingerprint is {config.get("fingerprint")}, but that of the model is'
        f' {loaded.fingerprint}: the files do not belong together; make the codec again'
      )
    return loaded

  @classmethod
  def from_released(cls, directory: str | os.PathLike, levels: int = LEVELS) -> Self:
    """Reads the folder that the authors release, as transformers has it.

    Args:
      directory: a folder on this machine; nothing is downloaded.
      levels: codebooks in use, the first ones.

    Raises:
      CodecError: the folder holds no whole Mimi, or has fewer codebooks.
    """
    try:
      model, report = transformers.MimiModel.from_pretrained(
        directory,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
      )
    except Exception as error:  # transformers raises whatever its parts do
      raise codec.CodecError(f'{directory}: holds no Mimi model ({error})') from error
    missing = sorted(report['missing_keys'])
    if missing:
      raise codec.CodecError(
        f'{directory}: model.safetensors lacks {", ".join(missing[:3])}'
        f' ({len(missing)} tensors in all); copy the whole folder'
      )
    return cls(model, levels)
