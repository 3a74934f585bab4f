"""The authors' recipe (arXiv 2509.20072), for configs that start from a pretrained model."""

from configs import base


def authors():
  """Their settings of the optimizer and of the three strategies; a model is still wanted.

  Learning rate 2e-5 with a cosine to 0 and a warm-up of 1 % of the steps, weight decay 0.01,
  beta2 0.95, bfloat16; BANOM 0.3, PPM 0.3, SST 0.5.
  """
  c = base.get_config()
  c.objective.banom, c.objective.ppm, c.objective.sst = 0.3, 0.3, 0.5
  c.optimizer.learning_rate = 2e-5
  c.optimizer.final_fraction = 0.0
  c.optimizer.weight_decay = 0.01
  c.optimizer.beta2 = 0.95
  c.train.steps = 10_000
  c.optimizer.warmup_steps = c.train.get_ref('steps') // 100  # of whatever is set later, too
  return c


def qwen2(layers: int, width: int, heads: int, kv_heads: int, mlp_width: int, tied: bool):
  """The recipe with a model of Qwen2.5's family, rows of 4,096 tokens, and FSDP."""
  c = authors()
  c.data.row_length = 4096
  c.data.batch_size = 256
  c.model.layers = layers
  c.model.width = width
  c.model.heads = heads
  c.model.kv_heads = kv_heads
  c.model.head_width = width // heads
  c.model.mlp_width = mlp_width
  c.model.tied = tied
  c.model.remat = 'gate'
  c.model.rope_theta = 1_000_000.0
  c.model.norm_epsilon = 1e-6
  c.model.vocabulary_multiple = 2048  # as ttt-convert pads, so that any mesh cuts it
  c.mesh.data = 1
  c.mesh.fsdp = -1
  return c
