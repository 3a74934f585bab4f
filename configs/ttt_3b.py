r"""TtT from Qwen2.5-3B: planned, never run.

    ttt-train --config=configs/ttt_3b.py --config.init.checkpoint=START \
        --config.data.directory=DATA --workdir=RUN --config.mesh.outer=8 \
        --config.train.accumulate=4

START is the folder that `ttt-convert from-hf --audio-codebook=16384` makes of the checkpoint.
On v5e:8x8, one row of 4,096 tokens a chip at a time: 8.4 GiB of 15.75 a chip, and at most
610 k tokens/s (`ttt-plan`, docs/scaling.md).
"""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-3B."""
  return recipe.qwen2(layers=36, width=2048, heads=16, kv_heads=2, mlp_width=11008, tied=True)
