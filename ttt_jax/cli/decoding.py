"""Flags for the settings of decoding, and presets of them."""

import dataclasses

from absl import flags

from ttt_jax import config as config_lib
from ttt_jax import errors

_TEXT = flags.DEFINE_float('text_temperature', None, 'Of text; 0 takes the likeliest token.')
_AUDIO = flags.DEFINE_float('audio_temperature', None, 'Of audio; likewise.')
_BLOCK = flags.DEFINE_integer('block_size', None, 'Audio tokens decoded in parallel.')
_STEPS = flags.DEFINE_integer('steps_per_block', None, 'Diffusion steps a block of audio.')
_ORDER = flags.DEFINE_string('order', None, "'confidence' or 'random': what is revealed first.")
_THRESHOLD = flags.DEFINE_float('threshold', None, 'Reveal all over this probability; 0: off.')
_GUIDANCE = flags.DEFINE_float('guidance', None, 'How far audio goes with its condition.')
_TOP_K = flags.DEFINE_integer('top_k', None, 'Draw among so many of the likeliest; 0: all.')
_TOP_P = flags.DEFINE_float('top_p', None, 'Draw among the likeliest of this probability.')
_MAX_TEXT = flags.DEFINE_integer('max_text', None, 'Text tokens of an answer, at most.')
_MAX_AUDIO = flags.DEFINE_integer('max_audio', None, 'Audio tokens of one span, at most.')
_PRESET = flags.DEFINE_string('preset', None, "'authors': as they decode.")

# Their script gives text no temperature, but draws it at 1 as soon as top_k or top_p is given.
_PRESETS = {
  'authors': {
    **{'block_size': 26, 'steps_per_block': 2, 'order': 'confidence', 'threshold': 0.0},
    **{'guidance': 0.1, 'audio_temperature': 0.0},
    **{'text_temperature': 1.0, 'top_k': 10, 'top_p': 0.95},
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
  own = (_BLOCK, _STEPS, _ORDER, _THRESHOLD, _GUIDANCE, _TEXT, _AUDIO, _TOP_K, _TOP_P)
  own += (_MAX_TEXT, _MAX_AUDIO)
  given = {flag.name: flag.value for flag in own if flag.value is not None}
  return dataclasses.replace(sampling, **(_PRESETS.get(name, {}) | given))


def limits(sampling: config_lib.Sampling) -> str:
  """What may have cut an answer short, and the flags that change it."""
  return (
    f'--{_MAX_TEXT.name} ({sampling.max_text} text tokens) or --{_MAX_AUDIO.name} '
    f'({sampling.max_audio} audio tokens of one span)'
  )
