"""Lets a trained model speak, transcribe or answer.

ttt-generate --checkpoint=RUN --speak="three seven one" --out=out.wav
ttt-generate --checkpoint=RUN --transcribe=in.wav
ttt-generate --checkpoint=RUN --ask=in.wav --out=answer.wav
"""

import dataclasses
import functools
import sys

from absl import flags

from ttt_jax import checkpoint, errors
from ttt_jax.cli import settings
from ttt_jax.codecs import audio_io
from ttt_jax.sampling import session as session_lib

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
_SPEAK = flags.DEFINE_string('speak', None, 'Text to say.')
_TRANSCRIBE = flags.DEFINE_string('transcribe', None, 'Recording to write down.')
_ASK = flags.DEFINE_string('ask', None, 'Recording of a question to answer.')
_OUT = flags.DEFINE_string('out', None, 'WAV file for what the model says.')
_VOICE = flags.DEFINE_integer('voice', 0, 'Voice to speak in, from 0.')
_TEMPERATURE = flags.DEFINE_float('temperature', None, '0 takes the most likely token.')
_STEPS = flags.DEFINE_integer('steps_per_block', None, 'Diffusion steps a block of audio.')
_SEED = flags.DEFINE_integer('seed', 0, 'For drawing at a temperature above 0.')


def main():
  """Reads the flags."""
  if sum(flag is not None for flag in (_SPEAK.value, _TRANSCRIBE.value, _ASK.value)) != 1:
    raise errors.UserError('give one of --speak=TEXT, --transcribe=WAV and --ask=WAV')
  if _SPEAK.value is not None and not _SPEAK.value.strip():
    raise errors.UserError('--speak has no text to say')
  if _SPEAK.value is not None and not _OUT.value:
    raise errors.UserError('--speak needs --out=FILE.wav')
  changes = {'temperature': _TEMPERATURE.value, 'steps_per_block': _STEPS.value}
  changes = {name: value for name, value in changes.items() if value is not None}
  sampling = checkpoint.load_config(_CHECKPOINT.value).sampling
  sampling = dataclasses.replace(sampling, **changes)
  if _SEED.value < 0:
    raise errors.UserError('--seed must be at least 0')
  if _SPEAK.value is None:
    recording = _ASK.value if _TRANSCRIBE.value is None else _TRANSCRIBE.value
    wave, rate = audio_io.read_wav(recording)
  session = session_lib.Session.load(_CHECKPOINT.value, sampling, _SEED.value)
  if _SPEAK.value is not None:
    reply = session.speak(_SPEAK.value, _VOICE.value)
  elif _TRANSCRIBE.value is not None:
    reply = session.transcribe(wave, rate)
  else:
    reply = session.ask(wave, rate, _VOICE.value)
  if reply.text:
    print(reply.text)
  if _OUT.value:
    if not len(reply.wave):
      raise errors.UserError('the model answered without audio')
    audio_io.write_wav(_OUT.value, reply.wave, session.assets.codec.sample_rate)
    seconds = len(reply.wave) / session.assets.codec.sample_rate
    print(f'{_OUT.value}: {seconds:.2f} s of speech', file=sys.stderr)
  if not reply.complete:
    print('note: a limit of config.sampling cut the answer short', file=sys.stderr)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
