"""TtT from Qwen2.5-7B: planned."""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-7B."""
  return recipe.qwen2(layers=28, width=3584, heads=28, kv_heads=4, mlp_width=18944, tied=False)
