"""TtT from Qwen2.5-0.5B: planned."""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-0.5B."""
  return recipe.qwen2(layers=24, width=896, heads=14, kv_heads=2, mlp_width=4864, tied=True)
