"""Answers as a command-line tool gives them: text is printed, sound is written."""

import contextlib
import sys

from ttt_jax import errors
from ttt_jax.codecs import audio_io
from ttt_jax.sampling import session as session_lib
from ttt_jax.sampling import stopwatch


def whole(session: session_lib.Session, task: str, said, voice: int, out: str | None) -> bool:
  """Gives an answer when it has ended.

  Args:
    session: of whom `task`, `said` and `voice` are asked, as its `reply` says.
    task: see there.
    said: see there.
    voice: see there.
    out: WAV file for the sound; '-': the standard output, and the text goes to the standard
      error; None: the sound is dropped.

  Returns:
    Whether it ended by itself.

  Raises:
    UserError: the file cannot be written, there is no sound for it, or as `reply`.
  """
  reply = session.reply(task, said, voice)
  if reply.text:
    _print_text(reply.text + '\n', out)
  if out and len(reply.wave):
    audio_io.write_wav(out, reply.wave, session.assets.codec.sample_rate)
  _tell_length(len(reply.wave), session, out)
  return reply.complete


def live(session: session_lib.Session, task: str, said, voice: int, out: str | None) -> bool:
  """Gives an answer as it comes, then tells how fast that was; `whole` has the rest."""
  first, file, samples, written = None, None, 0, False
  with stopwatch.Stopwatch() as watch, contextlib.ExitStack() as opened:
    for piece in session.stream(task, said, voice):
      _print_text(piece.text, out)
      written |= bool(piece.text)
      samples += len(piece.wave)
      if len(piece.wave):
        first = first or watch.lap()
        if out:
          file = file or opened.enter_context(
            audio_io.WavWriter(out, session.assets.codec.sample_rate)
          )
          file.write(piece.wave)
    total = watch.lap()
  if written:
    _print_text('\n', out)
  _tell_length(samples, session, out)
  if first is not None:
    seconds = samples / session.assets.codec.sample_rate
    print(
      f'first sound after {first.running:.2f} s, and {first.compiling:.2f} s of compilation\n'
      f'real-time factor {total.running / seconds:.2f} (seconds of work / seconds of sound; '
      f'{total.seconds / seconds:.2f} with {total.compiling:.2f} s of compilation)',
      file=sys.stderr,
    )
  return piece.complete


def _print_text(text: str, out: str | None) -> None:
  print(text, end='', flush=True, file=sys.stderr if out == '-' else sys.stdout)


def _tell_length(samples: int, session: session_lib.Session, out: str | None) -> None:
  if out and not samples:
    raise errors.UserError('the model answered without audio')
  if out:
    print(
      f'{out}: {samples / session.assets.codec.sample_rate:.2f} s of speech', file=sys.stderr
    )
