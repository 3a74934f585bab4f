"""AdamW with warm-up, cosine and clipping."""

import jax
import optax

from ttt_jax import config as config_lib


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
  """The optimizer of a run of `steps` steps."""
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(
      learning_rate(config, steps),
      b1=config.beta1,
      b2=config.beta2,
      weight_decay=config.weight_decay,
      mask=is_matrix,
    ),
  )


def is_matrix(params):
  """Which parameters decay: the matrices, but no scale of a norm and no bias."""

  def decays(path, _) -> bool:
    # The last name of the path; linen's boxes, where there are any, add no names.
    name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
    return name != 'scale' and not name.endswith('_bias')

  return jax.tree_util.tree_map_with_path(decays, params)
