"""AdamW or Muon, with warm-up, cosine and clipping."""

import re
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


def make(
  config: config_lib.Optimizer, steps: int, freeze: str = ''
) -> optax.GradientTransformation:
  """The optimizer of a run of `steps` steps; see `frozen` for `freeze`.

  Muon (arXiv 2502.16982) moves the layers' matrices, by updates as large as AdamW's; AdamW
  moves the rest, embeddings included. What is frozen has no state.
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
  if freeze:

    def labels(params):
      return jax.tree.map(lambda x: 'frozen' if x else 'trained', frozen(params, freeze))

    rule = optax.partition({'trained': rule, 'frozen': optax.set_to_zero()}, labels)
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)


def is_matrix(params: Any) -> Any:
  """Which parameters decay: the matrices, but no scale of a norm and no bias."""

  def decays(path, _) -> bool:
    return _name(path) != 'scale' and not _name(path).endswith('_bias')

  return jax.tree_util.tree_map_with_path(decays, params)


def frozen(params: Any, pattern: str) -> Any:
  """Which parameters stay as they are: those in whose names `pattern` is found.

  Args:
    params: tree of arrays, boxed or not.
    pattern: regular expression; '' freezes nothing. Names are such as 'embedding' and
      'layers/attention/q'.

  Raises:
    ConfigError: it finds nothing, or leaves nothing to train.
  """

  def one(path, _) -> bool:
    return bool(pattern) and re.search(pattern, name_of(path)) is not None

  chosen = jax.tree_util.tree_map_with_path(one, params)
  flags = jax.tree.leaves(chosen)
  if pattern and (all(flags) or not any(flags)):
    names = [name_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    what = 'all parameters' if all(flags) else 'no parameter'
    raise config_lib.ConfigError(
      f'config.train.freeze={pattern!r} freezes {what}; there are: {", ".join(names)}'
    )
  return chosen


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


def name_of(path: tuple) -> str:
  """The name of a parameter; linen's boxes, where there are any, add nothing to it."""
  return '/'.join(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _name(path: tuple) -> str:
  return name_of(path).rsplit('/', 1)[-1]
