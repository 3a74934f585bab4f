"""A trained model as the folder of a run holds it: settings, assets and parameters."""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint, description, parameters
from ttt_jax import config as config_lib
from ttt_jax.model import transformer
from ttt_jax.ops import attention


class Trained(NamedTuple):
  """A trained model, on one device.

  Attributes:
    config: settings of its run; attention is such as this machine has.
    assets: vocabulary, tokenizer, codec, prompts.
    step: of which the parameters are.
    params: its parameters.
  """

  config: config_lib.Config
  assets: assets_lib.Assets
  step: int
  params: Any


def load(folder: str | pathlib.Path) -> Trained:
  """The latest checkpoint of the run in `folder`.

  Raises:
    UserError: there is no such run, its files do not fit each other, or it has parameters that
      are no numbers.
  """
  config = description.config_of(folder)
  wanted = config.model.attention
  if not attention.runs(wanted):
    logging.warning(
      "%s trained with attention %r, which does not run here: 'auto' takes its place",
      *(folder, wanted),
    )
    model = dataclasses.replace(config.model, attention='auto')
    config = dataclasses.replace(config, model=model)
  assets = assets_lib.load(pathlib.Path(folder, assets_lib.DIRECTORY))
  step = checkpoint.verified(folder, 'params')
  model = transformer.Transformer(config.model, assets.vocabulary.size)
  params = parameters.restore(folder, transformer.shapes(model), step)
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if not _finite(leaf):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      raise checkpoint.CheckpointError(
        f'{checkpoint.folder(folder, step)}: {name} holds numbers that are not finite: no '
        f'answer would mean anything. Move this step out of {checkpoint.DIRECTORY}'
      )
  return Trained(config, assets, step, params)


@jax.jit
def _finite(leaf: jax.Array) -> jax.Array:
  return jnp.isfinite(leaf).all()
