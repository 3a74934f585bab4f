"""Converts checkpoints from Hugging Face's format and to it.

ttt-convert from-hf --source=Qwen2.5-1.5B --out=START --audio-codebook=16384
ttt-convert to-hf --checkpoint=RUN --out=FOLDER
"""

import functools

from absl import flags

from configs import base
from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.cli import settings
from ttt_jax.conversion import from_hf, to_hf

_SOURCE = flags.DEFINE_string('source', None, 'from-hf: folder of the checkpoint.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'to-hf: folder of a run.')
_OUT = flags.DEFINE_string('out', None, 'A new folder.', required=True)
_CODEBOOK = flags.DEFINE_integer(
  'audio_codebook',
  None,
  'from-hf: codes by which a vocabulary of text is extended.',
  lower_bound=1,
)
_CODEC = flags.DEFINE_string('codec', None, 'from-hf: folder of the codec of the audio tokens.')
_PROMPTS = flags.DEFINE_string(
  'prompts', None, 'from-hf: JSON file of system prompts, {task: [prompt, ...]}.'
)
_SEED = flags.DEFINE_integer('seed', 0, 'from-hf: of the rows of new tokens.', lower_bound=0)
_DTYPE = flags.DEFINE_enum(
  'dtype', None, list(from_hf.DTYPES), 'Of the tensors; by default that of the source.'
)
_SHARD = flags.DEFINE_float(
  'shard_gib', to_hf.SHARD_BYTES / 2**30, 'to-hf: of a file, at most.', lower_bound=0
)


def _from_hf():
  if not _SOURCE.value:
    raise errors.UserError('from-hf needs --source=FOLDER')
  chosen = from_hf.Settings(
    audio_codebook=_CODEBOOK.value,
    codec=_CODEC.value,
    prompts=assets_lib.read_prompts(_PROMPTS.value) if _PROMPTS.value else {},
    dtype=_DTYPE.value,
    seed=_SEED.value,
  )
  defaults = config_lib.from_config_dict(base.get_config())
  from_hf.convert(_SOURCE.value, _OUT.value, chosen, defaults)
  print(f'{_OUT.value}: train from it with --config=configs/finetune.py:{_OUT.value}')


def _to_hf():
  if not _CHECKPOINT.value:
    raise errors.UserError('to-hf needs --checkpoint=FOLDER')
  to_hf.convert(_CHECKPOINT.value, _OUT.value, _DTYPE.value, int(_SHARD.value * 2**30))
  print(f'{_OUT.value}: AutoModelForCausalLM.from_pretrained(..., trust_remote_code=True)')


run = functools.partial(settings.run, commands={'from-hf': _from_hf, 'to-hf': _to_hf})

if __name__ == '__main__':
  run()
