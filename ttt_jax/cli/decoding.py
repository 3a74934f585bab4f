"""Flags for the settings of decoding, and presets of them."""

import dataclasses

from absl import flags

from ttt_jax import config as config_lib
from ttt_jax import errors

_TEMPERATURE = flags.DEFINE_float('temperature', None, '0 takes the most likely token.')
_BLOCK = flags.DEFINE_integer('block_size', None, 'Audio tokens decoded in parallel.')
_STEPS = flags.DEFINE_integer('steps_per_block', None, 'Diffusion steps a block of audio.')
_ORDER = flags.DEFINE_string('order', None, "'confidence' or 'random': what is revealed first.")
_THRESHOLD = flags.DEFINE_float('threshold', None, 'Reveal all over this probability; 0: off.')
_GUIDANCE = flags.DEFINE_float('guidance', None, 'How far audio goes with its condition.')
_TOP_K = flags.DEFINE_integer('top_k', None, 'Draw among so many of the likeliest; 0: all.')
_TOP_P = flags.DEFINE_float('top_p', None, 'Draw among the likeliest of this probability.')
_PRESET = flags.DEFINE_string('preset', None, "'authors': audio as they decode it.")

# The authors' script takes the likeliest audio, but draws text, at temperature 1 among the ten
# likeliest that have 0.95 together. Here one temperature is of both: it is that of audio.
_PRESETS = {
  'authors': {
    **{'block_size': 26, 'steps_per_block': 2, 'order': 'confidence', 'threshold': 0.0},
    **{'guidance': 0.1, 'temperature': 0.0},
  }
}


def changed(sampling: config_lib.Sampling) -> config_lib.Sampling:
  """Settings of decoding as the flags want them: those of --preset, then those of each flag.

  Raises:
    UserError: there is no such preset, or a value is impossible.
  """
  name = _PRESET.value
  if name is not None and name not in _PRESETS:
    known = ', '.join(_PRESETS)
    raise errors.UserError(f'--preset={name}: there is no such preset (there is: {known})')
  own = (_BLOCK, _STEPS, _ORDER, _THRESHOLD, _GUIDANCE, _TEMPERATURE, _TOP_K, _TOP_P)
  given = {flag.name: flag.value for flag in own if flag.value is not None}
  return dataclasses.replace(sampling, **(_PRESETS.get(name, {}) | given))
