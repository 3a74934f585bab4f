"""A model that is judged: its parameters, where they lie, and what was compiled for them."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import sharding
from ttt_jax.evaluation import likelihood
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder, trained


class Candidate:
  """One model.

  Attributes:
    name: what tables call it.
    folder: of its run.
    step: of training.
    config: of the run.
    assets: of the run.
    params: its parameters; on a mesh if there is one.
  """

  def __init__(
    self,
    name: str,
    folder: str,
    step: int,
    config: config_lib.Config,
    assets: assets_lib.Assets,
    params: Any,
    mesh: Mesh | None = None,
  ):
    """Takes parameters on `mesh`, as in training, or on one device."""
    self.name, self.folder, self.step = name, folder, step
    self.config, self.assets, self._mesh = config, assets, mesh
    self.model = transformer.Transformer(config.model, assets.vocabulary.size)
    self._decoders: dict[config_lib.Sampling, decoder.Decoder] = {}
    self._scorer: likelihood.Scorer | None = None
    self._take(params)

  @classmethod
  def load(cls, folder: str, name: str) -> Self:
    """The latest checkpoint of the run in `folder`, on one device.

    Raises:
      UserError: there is no such run, or its files do not fit each other.
    """
    found = trained.load(folder)
    return cls(name, folder, found.step, found.config, found.assets, found.params)

  def at(self, step: int, params: Any) -> None:
    """Goes on to the parameters of another step; what was compiled is kept."""
    self.step = step
    self._take(params)

  def release(self) -> None:
    """Lets go of the parameters."""
    self.params = None

  def _take(self, params: Any) -> None:
    self.params = params
    self.count = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.fingerprint = fingerprint(params)

  def decoder(self, sampling: config_lib.Sampling) -> decoder.Decoder:
    """One with the parameters that there are now."""
    mesh, params = None, self.params
    if self._mesh:
      mesh = sharding.of_rows(self._mesh)
      params = sharding.moved(params, mesh)
    if sampling in self._decoders:
      return self._decoders[sampling].with_params(params)
    made = decoder.Decoder(
      self.model, params, self.assets.vocabulary, sampling, self.config.mask, mesh
    )
    self._decoders[sampling] = made.with_params({})  # keeps no parameters
    return made

  @property
  def scorer(self) -> likelihood.Scorer:
    """Takes likelihoods; of whatever parameters it is given."""
    if self._scorer is None:
      self._scorer = likelihood.Scorer(
        self.model,
        self.assets.vocabulary,
        self.config.mask,
        self.config.objective,
        self._mesh,
      )
    return self._scorer


def sampling(config: config_lib.Config, changes: Mapping[str, Any]) -> config_lib.Sampling:
  """Settings of decoding: those of a run, with changes.

  Raises:
    ConfigError: they do not fit.
  """
  values = dataclasses.asdict(config.sampling) | dict(changes)
  return config_lib.from_config_dict(config.to_dict() | {'sampling': values}).sampling


def fingerprint(params: Any) -> str:
  """Names the values of parameters: equal for equal ones, however they lie on devices.

  Sums modulo 2^32 of their bits, each times a number of its place: exact in any order.
  """
  leaves = jax.tree_util.tree_flatten_with_path(params)[0]
  sums = jax.device_get([_checksum(leaf) for _, leaf in leaves])
  lines = [
    f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} {total}'
    for (path, leaf), total in zip(leaves, sums)
  ]
  return hashlib.sha256('\n'.join(sorted(lines)).encode()).hexdigest()[:16]


@jax.jit
def _checksum(leaf: jax.Array) -> jax.Array:
  """uint32 []."""
  kind = {2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
  bits = jax.lax.bitcast_convert_type(leaf, kind).astype(jnp.uint32)
  place = jnp.zeros(leaf.shape, jnp.uint32)
  for axis in range(leaf.ndim):
    place = place * np.uint32(0x9E3779B1) + jax.lax.broadcasted_iota(
      jnp.uint32, leaf.shape, axis
    )
  # Odd factors: a change of one number changes the sum.
  return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
