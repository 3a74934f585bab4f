"""The codec: sounds of unequal lengths to tokens, in few shapes, on all devices."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Self

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ttt_jax.codecs import codec
from ttt_jax.codecs.glm4voice import encoder, features, weights
from ttt_jax.codecs.glm4voice import shape as shape_lib

# Whatever changes the meaning of an id without being in the parameters.
_ANALYSIS = {
  'sample_rate': features.SAMPLE_RATE,
  'hop': features.HOP,
  'window': features.WINDOW,
  'num_mels': features.NUM_MELS,
  'seconds': features.SECONDS,
  'floor': features.FLOOR,
  'range': features.RANGE,
}
# A clip is filled up to the first of these parts of a window that holds it. Each is compiled
# once, when it is first needed.
_PARTS = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
# Windows that an accelerator encodes at a time, or as many shorter clips as fill them.
_WINDOWS = 8


class Glm4Voice(codec.Codec):
  """Listens as GLM-4-Voice does; it cannot speak, which takes their decoder. See the module.

  A sound is cut into windows of 30 s, which know nothing of each other, and the tokens of all
  of them are joined. The tokens of a clip depend on it alone: not on what it is encoded beside,
  and not on the number of devices, each of which takes its share of a batch.
  """

  kind = 'glm4voice'
  abilities = frozenset({'encode'})
  sample_rate = features.SAMPLE_RATE

  def __init__(
    self,
    shape: shape_lib.Shape,
    params: Mapping,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts a codec together; see `load` and `from_released`.

    Args:
      shape: of the network.
      params: its parameters, as `weights.read` gives them.
      devices: those that encode; by default all of this process.
    """
    self._shape, self._params = shape, params
    self._mesh = Mesh(np.asarray(jax.local_devices() if devices is None else devices), 'data')

  @property
  def frame_rate(self) -> float:
    """Tokens a second."""
    return self.sample_rate / self._shape.samples

  @property
  def codebook_size(self) -> int:
    """How many different tokens there are."""
    return self._shape.quantize_vocab_size

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of the log-mels, the network's shape and all parameters that make tokens.

    A subclass has the same: what it makes of tokens changes none of them.
    """
    sizes = vars(self._shape)
    digest = hashlib.sha256(
      json.dumps([Glm4Voice.kind, _ANALYSIS, sizes], sort_keys=True).encode()
    )
    for name, array in weights.named(self._params):
      digest.update(f'{name}{array.shape}'.encode())
      digest.update(np.ascontiguousarray(array, '<f4').data)
    return digest.hexdigest()[:16]

  def encode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Tokens of a sound of any length, which is never held whole.

    Args:
      chunks: each `[S]` float32 samples at `self.sample_rate`; see `audio_stream.read`.

    Yields:
      `[T]` int32 ids of some windows; all of them joined are those of `encode`.
    """
    waiting = []
    for window in features.windows(chunks):
      waiting.append(window)
      if len(waiting) == self._rows(self._buckets[-1]):
        yield np.concatenate(self._tokens(waiting))
        waiting = []
    if waiting:
      yield np.concatenate(self._tokens(waiting))

  def _encode(self, wave: np.ndarray) -> np.ndarray:
    return self._encode_batch([wave])[0]

  def _encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
    cut = [list(features.windows([wave])) for wave in waves]
    ids = iter(self._tokens([window for windows in cut for window in windows]))
    return [np.concatenate([next(ids) for _ in windows]) for windows in cut]

  @functools.cached_property
  def _buckets(self) -> list[int]:
    """Tokens that a row may have room for."""
    whole = self._shape.max_source_positions // self._shape.pooling_kernel_size
    return sorted({max(1, int(whole * part)) for part in _PARTS})

  def _rows(self, bucket: int) -> int:
    """Rows of a batch of so many tokens each.

    Always the same number, filled with empty ones, so that it is always the same program that
    encodes a clip. A CPU is as fast with one row as with many.
    """
    each = 1
    if self._mesh.devices.flat[0].platform != 'cpu':
      each = _WINDOWS * self._buckets[-1] // bucket
    return each * self._mesh.size

  def _tokens(self, windows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`[S]` samples of each window, S > 0 -> `[T]` ids of each."""
    sizes = [self._shape.tokens(len(window)) for window in windows]
    queues = {bucket: [] for bucket in self._buckets}
    for number, size in enumerate(sizes):
      queues[next(bucket for bucket in self._buckets if size <= bucket)].append(number)
    made = []  # a device works on one batch while the next one's log-mels are made
    for bucket, queue in queues.items():
      rows = self._rows(bucket)
      for start in range(0, len(queue), rows):
        batch = queue[start : start + rows]
        mels, frames = self._batch([windows[number] for number in batch], bucket)
        made.append((batch, self._program(self._laid, mels, frames)))
    ids = [np.zeros(0, np.int32)] * len(windows)
    for batch, result in made:
      for number, row in zip(batch, np.asarray(result)):
        ids[number] = row[: sizes[number]]
    return ids

  def _empty(self, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    rows, length = self._rows(bucket), bucket * self._shape.samples // features.HOP
    return np.zeros((rows, length, features.NUM_MELS), np.float32), np.zeros(rows, np.int32)

  def _batch(self, windows, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-mels `[rows, frames, NUM_MELS]`, and the frames of each row that are sound."""
    mels, frames = self._empty(bucket)
    for row, window in enumerate(windows):
      made = features.log_mel(window, self._shape.samples)
      mels[row, : len(made)] = made
      frames[row] = -(-len(window) // features.HOP)
    return mels, frames

  @functools.cached_property
  def _laid(self):
    """The parameters, whole on every device."""
    return jax.device_put(self._params, NamedSharding(self._mesh, PartitionSpec()))

  @functools.cached_property
  def _program(self):
    whole, cut = (NamedSharding(self._mesh, PartitionSpec(*axes)) for axes in ((), ('data',)))

    @functools.partial(jax.jit, in_shardings=(whole, cut, cut), out_shardings=cut)
    def encode(params, mels, frames):
      rules = nn.logical_axis_rules((('batch', 'data'),))
      # Products rounded to bfloat16 or TF32 would move states over the borders of codes.
      with rules, jax.default_matmul_precision('highest'):
        return encoder.Encoder(self._shape).apply({'params': params}, mels, frames)

    return encode

  def lower(self):
    """The program of a batch of whole windows, lowered for the devices; nothing runs."""
    bucket = self._buckets[-1]
    mels, frames = jax.eval_shape(lambda: self._empty(bucket))
    return self._program.lower(self._params, mels, frames)

  def save(self, directory: str | os.PathLike) -> None:
    """Writes `codec.json`, `config.json` and `model.safetensors` into `directory`.

    What makes no tokens (averages of training, what is behind the codebook) is left out.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shape_lib.write(self._shape, directory)
    weights.write(self._params, directory)
    text = json.dumps({'kind': self.kind, 'fingerprint': self.fingerprint}, indent=2) + '\n'
    (directory / codec.CONFIG_NAME).write_text(text, encoding='utf-8')

  @classmethod
  def load(cls, directory: str | os.PathLike) -> Self:
    """Reads what `save` wrote.

    Raises:
      CodecError: a file is missing, damaged, or does not belong to the others.
    """
    told = codec.read_config(directory).get('fingerprint')
    loaded = cls.from_released(directory)
    if told != loaded.fingerprint:
      raise codec.CodecError(
        f'{pathlib.Path(directory, weights.NAME)}: the fingerprint is {loaded.fingerprint}, but'
        f' {codec.CONFIG_NAME} says {told}: the files do not belong together; make the codec'
        ' again'
      )
    return loaded

  @classmethod
  def from_released(
    cls, directory: str | os.PathLike, devices: Sequence[jax.Device] | None = None
  ) -> Self:
    """Reads the folder that the authors release: config.json and model.safetensors.

    Args:
      directory: that folder.
      devices: those that encode; by default all of this process.

    Raises:
      CodecError: a file is missing or damaged, or describes another network.
    """
    shape = shape_lib.read(directory)
    return cls(shape, weights.read(directory, shape), devices)
