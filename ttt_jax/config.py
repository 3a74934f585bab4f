"""Settings, as frozen dataclasses: each part of the project takes the one that it needs.

Keys and defaults stand once, in configs/base.py. `from_config_dict` builds the dataclasses
from such a config and refuses what does not fit: an unknown or missing key, a wrong type, a
value out of range.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from ttt_jax import checks
from ttt_jax.checks import ConfigError


@dataclasses.dataclass(frozen=True)
class Data:
  """Where records come from, and how rows are made of them."""

  directory: str
  cache: str
  split: str
  weights: tuple[float, ...]
  temperature: float
  changes: tuple[tuple[int, tuple[float, ...]], ...]
  row_length: int
  batch_size: int
  window: int
  threads: int
  workers: int

  def __post_init__(self):
    checks.positive(
      'data', self, 'temperature', 'row_length', 'batch_size', 'window', 'threads'
    )
    checks.require(self.workers >= 0, 'data.workers', self.workers, 'at least 0')
    if self.weights:
      self._check_weights('data.weights', self.weights)
    for _, weights in self.changes:
      self._check_weights('data.changes', weights)
    steps = [0, *(step for step, _ in self.changes)]
    rising = all(before < step for before, step in zip(steps, steps[1:]))
    checks.require(
      rising, 'data.changes', self.changes, 'in the order of their steps, from 1 on'
    )

  def _check_weights(self, key: str, weights: tuple[float, ...]) -> None:
    sets = len(self.directories)
    fits = 0 < len(weights) == sets and min(weights) >= 0 and 0 < sum(weights) < float('inf')
    what = f'{sets} weights, one for each folder of data.directory, and not all of them 0'
    checks.require(fits, key, weights, what)

  @property
  def directories(self) -> list[str]:
    """The folders of the data sets."""
    return [name.strip() for name in self.directory.split(',') if name.strip()]

  def alone(self, directory: str | os.PathLike) -> 'Data':
    """The same of one data set by itself, without its part in a mixture."""
    return dataclasses.replace(self, directory=str(directory), weights=(), changes=())


@dataclasses.dataclass(frozen=True)
class Mask:
  """What an audio token sees."""

  audio: str
  block_size: int
  causal_prompt: bool

  def __post_init__(self):
    checks.one_of('mask.audio', self.audio, ('span', 'block'))
    checks.positive('mask', self, 'block_size')

  @property
  def group_size(self) -> int | None:
    """Tokens of a group of audio that is seen at once; None where it is a whole span."""
    return self.block_size if self.audio == 'block' else None


@dataclasses.dataclass(frozen=True)
class Objective:
  """The diffusion of audio, its weights, and the strategies of training."""

  layout: str
  copies: int
  schedule: str
  power: float
  epsilon: float
  time_range: tuple[float, float]
  normalization: str
  banom: float
  ppm: float
  sst: float
  sst_range: tuple[float, float]
  sst_above: int
  condition_dropout: float
  restrict_classes: bool
  z_loss: float

  def __post_init__(self):
    checks.one_of('objective.layout', self.layout, ('one_stream', 'two_stream'))
    checks.one_of('objective.schedule', self.schedule, ('linear', 'cosine', 'polynomial'))
    checks.one_of('objective.normalization', self.normalization, ('document', 'token'))
    checks.require(0 < self.epsilon < 1, 'objective.epsilon', self.epsilon, 'between 0 and 1')
    checks.positive('objective', self, 'power', 'sst_above', 'copies')
    for name in ('banom', 'ppm', 'sst', 'condition_dropout'):
      value = getattr(self, name)
      checks.require(0 <= value <= 1, f'objective.{name}', value, 'a probability')
    checks.require(self.z_loss >= 0, 'objective.z_loss', self.z_loss, 'at least 0')
    if self.streams == 1:
      checks.require(
        self.copies == 1,
        'objective.copies',
        self.copies,
        "1 where objective.layout='one_stream': nothing is copied",
      )
    else:
      for name in ('banom', 'ppm'):
        what = "0 where objective.layout='two_stream': there all text and past audio is clean"
        checks.require(getattr(self, name) == 0, f'objective.{name}', getattr(self, name), what)
    low, high = self.time_range
    checks.require(
      0 <= low < high <= 1, 'objective.time_range', self.time_range, 'rising, in [0, 1]'
    )
    low, high = self.sst_range
    checks.require(
      0 < low <= high < 1, 'objective.sst_range', self.sst_range, 'rising, in (0, 1)'
    )

  @property
  def streams(self) -> int:
    """How many there are, and so how many intervals of keys a position sees."""
    return 2 if self.layout == 'two_stream' else 1


# Keys of `Model` that say how it is computed, and not what it is.
HOW_COMPUTED = ('dtype', 'reduce_dtype', 'remat', 'attention', 'loss_chunk')


@dataclasses.dataclass(frozen=True)
class Model:
  """Shape and numerics of the Transformer."""

  layers: int
  width: int
  heads: int
  kv_heads: int
  head_width: int
  mlp_width: int
  rope_theta: float
  rope_scaling: str
  rope_factor: float
  rope_low_turns: float
  rope_high_turns: float
  rope_original_length: int
  norm_epsilon: float
  qkv_bias: bool
  qk_norm: bool
  tied: bool
  vocabulary_multiple: int
  dtype: str
  reduce_dtype: str
  remat: str
  attention: str
  loss_chunk: int

  def __post_init__(self):
    sizes = ('layers', 'width', 'heads', 'kv_heads', 'head_width', 'mlp_width')
    sizes += ('vocabulary_multiple', 'loss_chunk')
    checks.positive('model', self, *sizes, 'rope_theta', 'norm_epsilon')
    checks.one_of('model.rope_scaling', self.rope_scaling, ('none', 'linear', 'llama3'))
    checks.positive('model', self, 'rope_factor', 'rope_low_turns', 'rope_original_length')
    checks.require(
      self.rope_high_turns > self.rope_low_turns,
      'model.rope_high_turns',
      self.rope_high_turns,
      'above rope_low_turns',
    )
    for name in ('dtype', 'reduce_dtype'):
      checks.one_of(f'model.{name}', getattr(self, name), ('float32', 'bfloat16'))
    checks.one_of('model.remat', self.remat, ('none', 'products', 'gate', 'attention', 'full'))
    options = ('auto', 'dense', 'chunked', 'tpu', 'gpu')
    checks.one_of('model.attention', self.attention, options)
    checks.require(
      self.heads % self.kv_heads == 0, 'model.kv_heads', self.kv_heads, 'a divisor of heads'
    )
    checks.require(self.head_width % 2 == 0, 'model.head_width', self.head_width, 'even')

  def padded(self, vocabulary_size: int) -> int:
    """Rows of the embedding: `vocabulary_size`, rounded up."""
    return -(-vocabulary_size // self.vocabulary_multiple) * self.vocabulary_multiple


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW or Muon, with warm-up and cosine."""

  name: str
  learning_rate: float
  final_fraction: float
  warmup_steps: int
  beta1: float
  beta2: float
  muon_beta: float
  weight_decay: float
  clip_norm: float

  def __post_init__(self):
    checks.one_of('optimizer.name', self.name, ('adamw', 'muon'))
    checks.positive('optimizer', self, 'learning_rate', 'clip_norm')
    for name in ('beta1', 'beta2', 'muon_beta'):
      value = getattr(self, name)
      checks.require(0 <= value < 1, f'optimizer.{name}', value, 'in [0, 1)')
    for name in ('final_fraction', 'warmup_steps', 'weight_decay'):
      value = getattr(self, name)
      checks.require(value >= 0, f'optimizer.{name}', value, 'at least 0')


@dataclasses.dataclass(frozen=True)
class Init:
  """Where the parameters of a new run come from."""

  checkpoint: str


@dataclasses.dataclass(frozen=True)
class Train:
  """The length of a run, what it trains, and how often it speaks and saves."""

  steps: int
  freeze: str
  accumulate: int
  log_every: int
  checkpoint_every: int
  keep: int
  keep_every: int

  def __post_init__(self):
    checks.positive(
      'train', self, 'steps', 'accumulate', 'log_every', 'checkpoint_every', 'keep'
    )
    # Others would be kept where both fall together, which may be far apart.
    kept = self.keep_every >= 0 and self.keep_every % self.checkpoint_every == 0
    what = f'0, or a multiple of train.checkpoint_every={self.checkpoint_every}'
    checks.require(kept, 'train.keep_every', self.keep_every, what)
    try:
      re.compile(self.freeze)
    except (re.error, OverflowError, RecursionError) as error:
      raise ConfigError(f'config.train.freeze is no regular expression: {error}') from error


@dataclasses.dataclass(frozen=True)
class Guard:
  """What a run bears, and when it gives up."""

  skips: int
  refill: int
  loss_spike: float
  gradient_spike: float
  hang: float
  grace: float
  failures: int
  backoff: float

  def __post_init__(self):
    checks.positive('guard', self, 'refill', 'hang', 'grace', 'failures')
    for name in ('skips', 'loss_spike', 'gradient_spike', 'backoff'):
      value = getattr(self, name)
      checks.require(value >= 0, f'guard.{name}', value, 'at least 0')


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices along each axis of the mesh; -1 takes all that are left."""

  slices: int
  data: int
  outer: int
  fsdp: int
  sequence: int
  tensor: int

  def __post_init__(self):
    sizes = dataclasses.asdict(self)
    for name, size in sizes.items():
      checks.require(size == -1 or size > 0, f'mesh.{name}', size, 'above 0, or -1')
    checks.require(list(sizes.values()).count(-1) <= 1, 'mesh', sizes, '-1 on one axis at most')


# Keys of `Sampling` in which prompts that are answered together may differ.
OF_A_REQUEST = (
  *('steps_per_block', 'threshold', 'text_temperature', 'audio_temperature'),
  *('max_text', 'max_audio'),
)


@dataclasses.dataclass(frozen=True)
class Sampling:
  """How text and audio are decoded."""

  block_size: int
  steps_per_block: int
  order: str
  threshold: float
  guidance: float
  text_temperature: float
  audio_temperature: float
  top_k: int
  top_p: float
  max_text: int
  max_audio: int
  max_prompt: int
  batch: int

  def __post_init__(self):
    checks.positive('sampling', self, 'block_size', 'steps_per_block', 'max_text', 'max_audio')
    checks.positive('sampling', self, 'max_prompt', 'batch')
    checks.one_of('sampling.order', self.order, ('confidence', 'random'))
    value = self.threshold
    checks.require(0 <= value < 1, 'sampling.threshold', value, 'in [0, 1)')
    goes = value == 0 or self.order == 'confidence'
    checks.require(goes, 'sampling.threshold', value, "0 where order is 'random'")
    for name in ('guidance', 'text_temperature', 'audio_temperature'):
      value = getattr(self, name)
      checks.require(
        0 <= value < float('inf'), f'sampling.{name}', value, 'at least 0, and finite'
      )
    checks.require(self.top_k >= 0, 'sampling.top_k', self.top_k, 'at least 0')
    checks.require(0 < self.top_p <= 1, 'sampling.top_p', self.top_p, 'in (0, 1]')
    fits = self.block_size <= self.max_audio
    checks.require(fits, 'sampling.block_size', self.block_size, 'at most max_audio')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """How often a model is judged while it is trained, and by what."""

  every: int
  suite: str

  def __post_init__(self):
    checks.require(self.every >= 0, 'evaluation.every', self.every, 'at least 0')
    named = bool(self.suite) or not self.every
    checks.require(
      named, 'evaluation.suite', self.suite, 'a file where evaluation.every is above 0'
    )


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run."""

  seed: int
  data: Data
  mask: Mask
  objective: Objective
  model: Model
  init: Init
  optimizer: Optimizer
  train: Train
  guard: Guard
  mesh: Mesh
  sampling: Sampling
  evaluation: Evaluation

  def __post_init__(self):
    checks.require(0 <= self.seed < 2**32, 'seed', self.seed, 'in 0..2**32 - 1')

  def to_dict(self) -> dict[str, Any]:
    """Plain nested dicts; `from_config_dict` takes them back."""
    return dataclasses.asdict(self)


def from_config_dict(config: Mapping[str, Any]) -> Config:
  """Builds the settings from an ml_collections config or nested dicts.

  Raises:
    ConfigError: names the key and, where it is unknown, the nearest one that exists.
  """
  values = config.to_dict() if hasattr(config, 'to_dict') else config
  return checks.build(Config, values)
