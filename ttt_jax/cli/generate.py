"""Lets a trained model speak, transcribe or answer.

ttt-generate --checkpoint=RUN --speak="three seven one" --out=out.wav
ttt-generate --checkpoint=RUN --transcribe=in.wav
ttt-generate --checkpoint=RUN --ask=in.wav --out=answer.wav
ttt-generate --checkpoint=RUN --ask=in.wav --codes=answer.json
ttt-generate --checkpoint=RUN --speak="three seven one" --stream --out=- | aplay

Settings of decoding are those of the run, then of --preset, then of their own flags.
"""

import functools
import sys

from absl import flags

from ttt_jax import assets as assets_lib
from ttt_jax import description, errors
from ttt_jax.cli import answers, decoding, settings
from ttt_jax.codecs import audio_io
from ttt_jax.sampling import session as session_lib

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
_SPEAK = flags.DEFINE_string('speak', None, 'Text to say.')
_TRANSCRIBE = flags.DEFINE_string('transcribe', None, 'Recording to write down.')
_ASK = flags.DEFINE_string('ask', None, 'Recording of a question to answer.')
_OUT = flags.DEFINE_string('out', None, 'WAV file for what the model says; -: standard output.')
_CODES = flags.DEFINE_string(
  'codes', None, 'JSON file for the codes of what the model says, a list for each span.'
)
_STREAM = flags.DEFINE_boolean('stream', False, 'Write text and sound as they come.')
_VOICE = flags.DEFINE_integer('voice', 0, 'Voice to speak in, from 0.')
_SEED = flags.DEFINE_integer('seed', 0, 'For drawing at a temperature above 0.', 0, 2**32 - 1)


def _request() -> tuple[str, str | session_lib.Recording]:
  """The task that the flags name, and what the user says."""
  if sum(flag is not None for flag in (_SPEAK.value, _TRANSCRIBE.value, _ASK.value)) != 1:
    raise errors.UserError('give one of --speak=TEXT, --transcribe=WAV and --ask=WAV')
  if _TRANSCRIBE.value is not None:
    if _OUT.value or _CODES.value:
      raise errors.UserError('--transcribe answers in text: leave out --out and --codes')
    return assets_lib.TRANSCRIBE, audio_io.read_wav(_TRANSCRIBE.value)
  if _ASK.value is not None:
    return assets_lib.ANSWER, audio_io.read_wav(_ASK.value)
  if not _SPEAK.value.strip():
    raise errors.UserError('--speak has no text to say')
  if not _OUT.value and not _CODES.value:
    raise errors.UserError('--speak needs --out=FILE.wav or --codes=FILE.json')
  return assets_lib.SPEAK, _SPEAK.value


def main():
  """Reads the flags."""
  task, said = _request()
  settings.check_files(_OUT, _CODES)
  sampling = decoding.changed(description.config_of(_CHECKPOINT.value).sampling)
  session = session_lib.Session.load(_CHECKPOINT.value, sampling, _SEED.value)
  give = answers.live if _STREAM.value else answers.whole
  if not give(session, task, said, _VOICE.value, _OUT.value, _CODES.value):
    limits = decoding.limits(sampling)
    print(f'note: a limit cut the answer short; to raise it, give {limits}', file=sys.stderr)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
