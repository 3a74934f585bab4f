"""TtT from Qwen2.5-1.5B: planned."""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-1.5B."""
  return recipe.qwen2(layers=28, width=1536, heads=12, kv_heads=2, mlp_width=8960, tied=True)
