"""Trains from a converted checkpoint: `--config=configs/finetune.py:FOLDER`.

The model is that of the folder, as `ttt-convert from-hf` wrote it. The rest is the authors'
recipe (arXiv 2509.20072) per row of 2,048 tokens; their batch is 64 rows a GPU.
"""

import json
import pathlib

from configs import recipe


def get_config(checkpoint: str = ''):
  """Settings for going on from the model in the folder `checkpoint`."""
  if not checkpoint:
    raise ValueError('name the folder of the model: --config=configs/finetune.py:FOLDER')
  c = recipe.authors()
  c.init.checkpoint = checkpoint
  described = json.loads(pathlib.Path(checkpoint, 'config.json').read_text(encoding='utf-8'))
  c.model.update(described['config']['model'])
  c.mask.update(described['config']['mask'])
  c.sampling.update(described['config']['sampling'])
  c.data.row_length = 2048
  return c
