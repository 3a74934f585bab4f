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
  path = pathlib.Path(checkpoint, 'config.json')
  try:
    described = json.loads(path.read_text(encoding='utf-8'))['config']
    for name in ('model', 'mask', 'sampling'):
      c[name].update(described[name])
  except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
    raise ValueError(
      f'{path}: does not describe a run ({error!r}): if this is a model in Hugging Face '
      f'format, convert it by `ttt-convert from-hf --source={checkpoint} --out=START` and name '
      'START'
    ) from error
  c.data.row_length = 2048
  return c
