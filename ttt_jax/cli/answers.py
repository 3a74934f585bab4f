"""Answers as a command-line tool gives them: text is printed, sound is written."""

import contextlib
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from ttt_jax import errors
from ttt_jax.codecs import audio_io
from ttt_jax.sampling import session as session_lib
from ttt_jax.sampling import stopwatch

_NO_CODES = np.zeros(0, np.int32)


def whole(
  session: session_lib.Session,
  task: str,
  said,
  voice: int,
  out: str | None,
  codes: str | None = None,
) -> bool:
  """Gives an answer when it has ended.

  Args:
    session: of whom `task`, `said` and `voice` are asked, as its `reply` says.
    task: see there.
    said: see there.
    voice: see there.
    out: WAV file for the sound; '-': the standard output, and the text goes to the standard
      error; None: no sound is made.
    codes: JSON file for the codes, a list for each span; None: they are dropped.

  Returns:
    Whether it ended by itself.

  Raises:
    UserError: a file cannot be written, there is no audio for it, or as `reply`.
  """
  reply = session.reply(task, said, voice, sound=bool(out))
  if reply.text:
    _print_text(reply.text + '\n', out)
  if codes:
    _write_codes(codes, reply.codes)
  if out and len(reply.wave):
    audio_io.write_wav(out, reply.wave, session.assets.codec.sample_rate)
  _tell_length(len(reply.wave), session, out)
  return reply.complete


def live(
  session: session_lib.Session,
  task: str,
  said,
  voice: int,
  out: str | None,
  codes: str | None = None,
) -> bool:
  """Gives an answer as it comes, then tells how fast that was; `whole` has the rest.

  Codes are written at the end.
  """
  first, file, samples, written, spans = None, None, 0, False, [_NO_CODES]
  with stopwatch.Stopwatch() as watch, contextlib.ExitStack() as opened:
    for piece in session.stream(task, said, voice, sound=bool(out)):
      _print_text(piece.text, out)
      written |= bool(piece.text)
      samples += len(piece.wave)
      spans[-1] = np.append(spans[-1], piece.codes)
      if piece.kind == 'end':
        spans.append(_NO_CODES)
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
  if codes:
    _write_codes(codes, spans if len(spans[-1]) else spans[:-1])
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


def _write_codes(path: str, spans: Sequence[np.ndarray]) -> None:
  count = sum(map(len, spans))
  if not count:
    raise errors.UserError('the model answered without audio')
  text = json.dumps([span.tolist() for span in spans]) + '\n'
  try:
    pathlib.Path(path).write_text(text, encoding='utf-8')
  except OSError as error:
    raise errors.UserError(
      f'--codes={path}: cannot be written ({error}); check that the folder exists and is '
      'writable'
    ) from error
  print(f'{path}: {count} codes, spans: {len(spans)}', file=sys.stderr)


def _print_text(text: str, out: str | None) -> None:
  print(text, end='', flush=True, file=sys.stderr if out == '-' else sys.stdout)


def _tell_length(samples: int, session: session_lib.Session, out: str | None) -> None:
  if out and not samples:
    raise errors.UserError('the model answered without audio')
  if out:
    print(
      f'{out}: {samples / session.assets.codec.sample_rate:.2f} s of speech', file=sys.stderr
    )
