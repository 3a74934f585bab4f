"""TtT from Qwen2.5-3B: planned."""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-3B."""
  return recipe.qwen2(layers=36, width=2048, heads=16, kv_heads=2, mlp_width=11008, tied=True)
