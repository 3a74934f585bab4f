"""A codec made in seconds from a few minutes of speech: nearest log-mel patch.

`frames_per_token` log-mel frames of 10 ms are stacked into a patch, rotated into its main
directions (PCA), and named by the nearest of `codebook_size` centroids (k-means). To
decode, each id becomes the mean patch of its cluster, and Griffin-Lim finds phases, so that
sound follows the ids by some 160 ms.
"""

import functools
import hashlib
import json
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.cluster import vq

from ttt_jax import arrays
from ttt_jax.codecs import audio_io, codec, griffin_lim, spectrogram, threads

_ARRAYS_NAME = 'codec.npz'
_NUM_COMPONENTS = 64  # directions kept by the PCA
MAX_PATCHES = 40_000  # patches that k-means looks at, drawn at random: no more ids than that
_KMEANS_STEPS = 15
# Whatever changes the meaning of an id without being in the arrays.
_ANALYSIS = {
  'sample_rate': spectrogram.SAMPLE_RATE,
  'hop': spectrogram.HOP,
  'window': spectrogram.WINDOW,
  'num_mels': spectrogram.NUM_MELS,
  'mel_range': spectrogram.MEL_RANGE,
  'log_floor': spectrogram.LOG_FLOOR,
  'level': spectrogram.LEVEL,
}


class MelVQ(codec.Codec):
  """Vector quantisation of log-mel patches. See the module; made by `fit` or `load`."""

  kind = 'mel_vq'
  abilities = frozenset({'encode', 'decode', 'stream'})
  sample_rate = spectrogram.SAMPLE_RATE

  def __init__(
    self,
    mean: np.ndarray,
    components: np.ndarray,
    centroids: np.ndarray,
    patches: np.ndarray,
  ):
    """Puts a codec together from what `fit` found.

    Args:
      mean: `[P]` float32, the mean patch; P = frames_per_token * NUM_MELS.
      components: `[P, C]` float32, the directions of the PCA.
      centroids: `[codebook_size, C]` float32, in those directions.
      patches: `[codebook_size, P]` float32, the log-mels that each id stands for.
    """
    self._arrays = {
      'mean': mean,
      'components': components,
      'centroids': centroids,
      'patches': patches,
    }
    self._check_arrays()

  def _check_arrays(self) -> None:
    a = self._arrays
    width, components = a['components'].shape
    shapes = {
      'mean': (width,),
      'components': (width, components),
      'centroids': (len(a['centroids']), components),
      'patches': (len(a['centroids']), width),
    }
    for name, shape in shapes.items():
      if a[name].shape != shape or a[name].dtype != np.float32:
        raise codec.CodecError(
          f'{name}: expected float32 {list(shape)}, got {a[name].dtype} {list(a[name].shape)}'
        )
    if width % spectrogram.NUM_MELS:
      raise codec.CodecError(f'a patch has {width} values, not a multiple of the mels')

  @classmethod
  def fit(
    cls,
    waves: Sequence[np.ndarray],
    sample_rate: int,
    *,
    frames_per_token: int = 4,
    codebook_size: int = 512,
    seed: int = 0,
  ) -> Self:
    """Learns a codebook.

    Args:
      waves: recordings, each `[S]` float32.
      sample_rate: samples a second of all of them.
      frames_per_token: frames of 10 ms a token: 4 makes 25 tokens a second.
      codebook_size: how many different tokens.
      seed: of the choice of patches and of the first centroids.

    Returns:
      The codec; the same for the same arguments.

    Raises:
      AudioError: a recording is not a waveform.
      ValueError: a size is not positive.
      CodecError: there is too little sound for the codebook, or it is over `MAX_PATCHES`.
    """
    if frames_per_token < 1 or codebook_size < 1:
      raise ValueError(
        'frames_per_token and codebook_size must be at least 1,'
        f' got {frames_per_token} and {codebook_size}'
      )
    with threads.one_thread():
      stacks = [_patches_of(_prepare(wave, sample_rate), frames_per_token) for wave in waves]
    num_patches = sum(map(len, stacks))
    if min(num_patches, MAX_PATCHES) < codebook_size:
      raise codec.CodecError(
        f'{len(stacks)} recordings hold {num_patches} patches, of which up to {MAX_PATCHES} are'
        f' used: too few for a codebook of {codebook_size}; give more recordings or a smaller'
        ' codebook_size'
      )
    rng = np.random.default_rng(seed)
    patches = np.concatenate(stacks)[rng.permutation(num_patches)[:MAX_PATCHES]]
    with threads.one_thread():
      return cls(*_cluster(patches, codebook_size, rng))

  @property
  def frames_per_token(self) -> int:
    """Log-mel frames of 10 ms in a patch."""
    return len(self._arrays['mean']) // spectrogram.NUM_MELS

  @property
  def frame_rate(self) -> float:
    """Tokens a second."""
    return self.sample_rate / (spectrogram.HOP * self.frames_per_token)

  @property
  def codebook_size(self) -> int:
    """How many different tokens there are."""
    return len(self._arrays['centroids'])

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of the codebook and of the analysis it was made for."""
    digest = hashlib.sha256(json.dumps([self.kind, _ANALYSIS], sort_keys=True).encode())
    for name, array in sorted(self._arrays.items()):
      digest.update(f'{name}{array.shape}'.encode())
      digest.update(array.astype('<f4').tobytes())
    return digest.hexdigest()[:16]

  def _encode(self, wave: np.ndarray) -> np.ndarray:
    with threads.one_thread():
      patches = _patches_of(spectrogram.normalise_level(wave), self.frames_per_token)
      points = (patches - self._arrays['mean']) @ self._arrays['components']
      return vq.vq(points, self._arrays['centroids'], check_finite=False)[0]

  @functools.cached_property
  def _magnitudes(self) -> np.ndarray:
    # Inverting the mels of every id once makes decoding a look-up and Griffin-Lim.
    frames = self._arrays['patches'].reshape(-1, spectrogram.NUM_MELS)
    magnitudes = spectrogram.linear_magnitude(frames)
    return magnitudes.reshape(self.codebook_size, self.frames_per_token, -1)

  def _decoder(self) -> codec.Decoder:
    return _Decoder(self._magnitudes)

  def save(self, directory: str | os.PathLike) -> None:
    """Writes `codec.json` and `codec.npz` into `directory`, which is made if needed."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / _ARRAYS_NAME, **self._arrays)
    config = {
      'kind': self.kind,
      'frames_per_token': self.frames_per_token,
      'codebook_size': self.codebook_size,
      'fingerprint': self.fingerprint,
    }
    text = json.dumps(config, indent=2) + '\n'
    (directory / codec.CONFIG_NAME).write_text(text, encoding='utf-8')

  @classmethod
  def load(cls, directory: str | os.PathLike) -> Self:
    """Reads what `save` wrote.

    Args:
      directory: the codec's directory.

    Returns:
      The codec, with the fingerprint it was saved with.

    Raises:
      CodecError: a file is missing, damaged, or does not belong to the other.
    """
    directory = pathlib.Path(directory)
    config = codec.read_config(directory)
    path = directory / _ARRAYS_NAME
    names = ('mean', 'components', 'centroids', 'patches')  # as __init__ takes them
    try:
      stored = arrays.read(path)
      loaded = cls(*(stored[name] for name in names))
    except FileNotFoundError as error:
      raise codec.CodecError(f'{path}: missing; copy the whole codec directory') from error
    except (OSError, KeyError, ValueError) as error:
      raise codec.CodecError(f'{path}: damaged ({error}); make the codec again') from error
    if config.get('fingerprint') != loaded.fingerprint:
      raise codec.CodecError(
        f'{path}: its fingerprint is {loaded.fingerprint}, but {codec.CONFIG_NAME} says'
        f' {config.get("fingerprint")}: the files do not belong together, or were made by'
        ' another version of the analysis; make the codec again'
      )
    return loaded


class _Decoder(codec.Decoder):
  """Looks magnitudes up, and finds phases for them as they come."""

  def __init__(self, magnitudes: np.ndarray):
    """Takes `[codebook_size, frames_per_token, WINDOW // 2 + 1]` float32 magnitudes."""
    super().__init__(len(magnitudes))
    self._magnitudes, self._phases = magnitudes, griffin_lim.GriffinLim()

  def _push(self, ids: np.ndarray) -> np.ndarray:
    with threads.one_thread():
      return self._phases.push(self._magnitudes[ids].reshape(-1, self._magnitudes.shape[2]))

  def _flush(self) -> np.ndarray:
    with threads.one_thread():
      return self._phases.flush()


def _prepare(wave: np.ndarray, sample_rate: int) -> np.ndarray:
  audio_io.check_wave(wave, 'wave to fit on')
  wave = audio_io.resample(wave, sample_rate, spectrogram.SAMPLE_RATE)
  return spectrogram.normalise_level(wave)


def _patches_of(wave: np.ndarray, frames_per_token: int) -> np.ndarray:
  """`[S]` samples -> `[T, P]` float32 stacked log-mels, the last patch filled with silence."""
  log_mels = spectrogram.log_mel(wave)
  missing = -len(log_mels) % frames_per_token
  padding = ((0, missing), (0, 0))
  log_mels = np.pad(log_mels, padding, constant_values=spectrogram.LOG_FLOOR)
  return log_mels.reshape(-1, frames_per_token * spectrogram.NUM_MELS)


def _cluster(
  patches: np.ndarray, codebook_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """`[N, P]` patches -> mean, components, centroids, mean patches (see MelVQ.__init__)."""
  mean = patches.mean(axis=0)
  centred = patches - mean
  # eigh sorts by growing variance; the directions with the most of it come last.
  directions = np.linalg.eigh(centred.T @ centred)[1]
  components = np.ascontiguousarray(directions[:, ::-1][:, :_NUM_COMPONENTS])
  points = centred @ components
  with warnings.catch_warnings():
    # A cluster that runs empty keeps its centroid: an id that is just never used.
    warnings.filterwarnings('ignore', 'One of the clusters is empty', UserWarning)
    # minit='++' would seed better and takes minutes: it measures all distances in Python.
    centroids, _ = vq.kmeans2(
      points, codebook_size, iter=_KMEANS_STEPS, minit='points', missing='warn', rng=rng
    )
  labels = vq.vq(points, centroids)[0]
  counts = np.bincount(labels, minlength=codebook_size)[:, None]
  # Means of the patches themselves, not of their rotations: these keep what the PCA drops.
  order = np.argsort(labels, kind='stable')
  used = np.flatnonzero(counts)
  starts = np.searchsorted(labels[order], used)
  means = centroids @ components.T + mean
  means[used] = np.add.reduceat(patches[order], starts, axis=0) / counts[used]
  return mean, components, centroids.astype(np.float32), means.astype(np.float32)
