"""AdamW or Muon, with warm-up, cosine and clipping."""

from typing import Any

import jax
import optax
from optax import contrib

from ttt_jax import config as config_lib

# Of each stacked weight matrix [layers, ...]: the axes of its input, and of its output.
_MATRICES = {
  'q': ((1,), (2, 3)),
  'k': ((1,), (2, 3)),
  'v': ((1,), (2, 3)),
  'out': ((1, 2), (3,)),
  'gate': ((1,), (2,)),
  'up': ((1,), (2,)),
  'down': ((1,), (2,)),
}


def learning_rate(config: config_lib.Optimizer, steps: int) -> optax.Schedule:
  """Linear warm-up to the peak, then a cosine down to its `final_fraction`."""
  warmup = min(config.warmup_steps, steps - 1)
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=warmup,
    decay_steps=steps,  # optax counts the warm-up in
    end_value=config.learning_rate * config.final_fraction,
  )


def make(config: config_lib.Optimizer, steps: int) -> optax.GradientTransformation:
  """The optimizer of a run of `steps` steps.

  Muon (arXiv 2502.16982) moves the layers' matrices, by updates as large as AdamW's; AdamW
  moves the rest, embeddings included.
  """
  rate = learning_rate(config, steps)
  rule = adamw = optax.adamw(
    rate,
    b1=config.beta1,
    b2=config.beta2,
    weight_decay=config.weight_decay,
    mask=is_matrix,
  )
  if config.name == 'muon':
    muon = contrib.muon(
      rate,
      beta=config.muon_beta,
      weight_decay=config.weight_decay,
      muon_weight_dimension_numbers=_dimensions,
      consistent_rms=0.2,  # the size of AdamW's updates: one learning rate serves both
    )
    rule = optax.partition({'muon': muon, 'adamw': adamw}, _rules)
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)


def is_matrix(params: Any) -> Any:
  """Which parameters decay: the matrices, but no scale of a norm and no bias."""

  def decays(path, _) -> bool:
    return _name(path) != 'scale' and not _name(path).endswith('_bias')

  return jax.tree_util.tree_map_with_path(decays, params)


def _rules(params: Any) -> Any:
  """Which rule moves each parameter."""

  def one(path, _) -> str:
    return 'muon' if _name(path) in _MATRICES else 'adamw'

  return jax.tree_util.tree_map_with_path(one, params)


def _dimensions(params: Any) -> Any:
  """The axes of the matrices that Muon moves; there are no others in `params`."""

  def one(path, _) -> contrib.MuonDimensionNumbers:
    return contrib.MuonDimensionNumbers(*_MATRICES[_name(path)])

  return jax.tree_util.tree_map_with_path(one, params)


def _name(path: tuple) -> str:
  """The last name of a path; linen's boxes, where there are any, add no names."""
  return [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
