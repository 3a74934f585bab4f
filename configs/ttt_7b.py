r"""TtT from Qwen2.5-7B: planned, never run.

    ttt-train --config=configs/ttt_7b.py --config.init.checkpoint=START \
        --config.data.directory=DATA --workdir=RUN --config.mesh.outer=16 \
        --config.data.row_length=8192

START is the folder that `ttt-convert from-hf --audio-codebook=16384` makes of the checkpoint.
On v6e:16x16, one row of 8,192 tokens a chip: 17.7 GiB of 31.2 a chip, and at most
4.97 M tokens/s (`ttt-plan`, docs/scaling.md).
"""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-7B."""
  return recipe.qwen2(layers=28, width=3584, heads=28, kv_heads=4, mlp_width=18944, tied=False)
