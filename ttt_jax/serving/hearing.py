"""What a request says: text as JSON, or a recording as WAV or raw PCM."""

import io
import json

import numpy as np
import soundfile

from ttt_jax.codecs import audio_io
from ttt_jax.sampling import session as session_lib
from ttt_jax.serving import limits as limits_lib
from ttt_jax.serving import problems

JSON, WAV, PCM = 'application/json', 'audio/wav', 'audio/pcm'
_KINDS = {JSON: JSON, WAV: WAV, 'audio/x-wav': WAV, 'audio/wave': WAV, PCM: PCM}
_RATES = 4_000, 192_000
_CHANNELS = 8


def kind_of(content_type: str, allowed: tuple[str, ...]) -> str:
  """The kind of a body, by its Content-Type.

  Raises:
    Problem: it is none of `allowed`.
  """
  kind = _KINDS.get(content_type.split(';')[0].strip().lower())
  if kind not in allowed:
    raise problems.Problem(415, f'send a body with Content-Type {" or ".join(allowed)}')
  return kind


def text(body: bytes, limits: limits_lib.Limits) -> str:
  """What `{"text": ...}` says.

  Raises:
    Problem: it is not that, is empty, or too long.
  """
  try:
    found = json.loads(body.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    raise problems.Problem(400, 'the body is not JSON') from error
  said = found.get('text') if isinstance(found, dict) else None
  if not isinstance(said, str) or set(found) != {'text'}:
    raise problems.Problem(422, 'the body must be {"text": "..."}; settings go in the query')
  if not said.strip():
    raise problems.Problem(422, 'text is empty')
  if len(said) > limits.text:
    raise problems.Problem(413, f'text has {len(said)} characters; {limits.text} are allowed')
  if any('\ud800' <= character <= '\udfff' for character in said):
    raise problems.Problem(422, 'text has half of a surrogate pair')
  return said


def recording(
  body: bytes, kind: str, rate: int, limits: limits_lib.Limits
) -> session_lib.Recording:
  """Samples, float32 [S], and their rate.

  Args:
    body: a WAV file, or 16-bit PCM, little-endian, of one channel.
    kind: WAV or PCM.
    rate: samples a second, of PCM.
    limits: on the seconds.

  Raises:
    Problem: it is not that, is empty, or too long.
  """
  if not body:
    raise problems.Problem(400, 'the body is empty')
  if kind == PCM:
    if len(body) % 2:
      raise problems.Problem(400, 'the body is not 16-bit PCM: it has an odd number of bytes')
    _check(rate, 1)
    wave = np.frombuffer(body, '<i2').astype(np.float32) / 2**15
    _check_length(len(wave) / rate, limits)
    return wave, rate
  if body[:4] not in (b'RIFF', b'RF64') or body[8:12] != b'WAVE':
    raise problems.Problem(400, 'the body is not a WAV file')
  try:
    with soundfile.SoundFile(io.BytesIO(body)) as file:
      _check(file.samplerate, file.channels)
      wave, rate = _read(file, limits), file.samplerate
    audio_io.check_wave(wave, 'the recording')
  except (soundfile.SoundFileError, audio_io.AudioError) as error:
    why = str(error) if isinstance(error, audio_io.AudioError) else 'it is damaged'
    raise problems.Problem(400, f'the body is no usable WAV file: {why}') from error
  return wave, rate


def _check(rate: int, channels: int) -> None:
  if not _RATES[0] <= rate <= _RATES[1] or channels > _CHANNELS:
    raise problems.Problem(
      422,
      f'a recording of {rate} Hz and {channels} channels; allowed are {_RATES[0]} to '
      f'{_RATES[1]} Hz, and {_CHANNELS} channels at most',
    )


def _check_length(seconds: float, limits: limits_lib.Limits) -> None:
  if seconds > limits.recording:
    raise problems.Problem(413, f'the recording lasts more than {limits.recording:g} s')


def _read(file: soundfile.SoundFile, limits: limits_lib.Limits) -> np.ndarray:
  """Second by second: a header may say anything of the length."""
  parts, samples, more = [np.zeros(0, np.float32)], 0, True
  while more:
    part = file.read(file.samplerate, dtype='float32', always_2d=True)
    parts.append(part.mean(axis=1, dtype=np.float32))
    samples, more = samples + len(part), len(part) > 0
    _check_length(samples / file.samplerate, limits)
  return np.concatenate(parts)
