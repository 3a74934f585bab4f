r"""TtT from Qwen2.5-0.5B: planned, never run.

    ttt-train --config=configs/ttt_0p5b.py --config.init.checkpoint=START \
        --config.data.directory=DATA --workdir=RUN --config.mesh.outer=4 \
        --config.train.accumulate=16

START is the folder that `ttt-convert from-hf --audio-codebook=16384` makes of the checkpoint.
On v5e:4x4, one row of 4,096 tokens a chip at a time: 3.6 GiB of 15.75 a chip, and at most
1.02 M tokens/s (`ttt-plan`, docs/scaling.md).
"""

from configs import recipe


def get_config():
  """The authors' recipe, with the shape of Qwen2.5-0.5B."""
  return recipe.qwen2(layers=24, width=896, heads=14, kv_heads=2, mlp_width=4864, tied=True)
