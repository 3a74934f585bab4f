"""A model that learns the little world on two CPU cores."""

from configs import base


def get_config():
  """The quickstart's settings."""
  c = base.get_config()
  c.model.layers = 4
  c.model.width = 128
  c.model.heads = 4
  c.model.kv_heads = 4
  c.model.head_width = 32
  c.model.mlp_width = 384
  c.model.dtype = 'float32'  # a CPU has no fast bfloat16
  c.model.remat = 'none'
  # Of what decodes in blocks, the best of docs/ablation.md.
  c.objective.layout = 'two_stream'
  c.objective.banom = c.objective.ppm = c.objective.sst = 0.0
  c.mask.audio = 'block'
  c.data.row_length = 384  # filled best by documents in two streams
  c.data.batch_size = 4
  c.optimizer.name = 'muon'
  c.optimizer.learning_rate = 2e-3
  c.optimizer.beta2 = 0.98
  c.sampling.steps_per_block = 2
  c.sampling.max_text = 32
  c.sampling.max_audio = 128  # about five seconds
  c.train.steps = 3200
  return c
