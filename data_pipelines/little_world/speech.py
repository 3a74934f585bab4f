"""Text to speech with espeak-ng, from the library that the wheel `espeakng-loader` ships."""

import ctypes
import dataclasses
import functools
import pathlib
import tempfile
import threading

import numpy as np

from ttt_jax.codecs import audio_io, spectrogram

SAMPLE_RATE = spectrogram.SAMPLE_RATE  # Hz, of what `Speaker.say` returns

_EDGE = 640  # samples kept before and after speech: 40 ms
_AUDIBLE = 0.01  # speech is what lies within 40 dB of the loudest 25 ms
_SEED = 1
_PRIMER = 'a'  # said and thrown away before every text

# Constants of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Voice:
  """One way of speaking.

  Attributes:
    name: `language+variant` of espeak-ng. Only its klatt variants say the same text the
      same way each time; the others carry state from utterance to utterance.
    rate: words a minute.
    pitch: 0 to 99.
  """

  name: str
  rate: int
  pitch: int


# The first is heard best.
VOICES = (
  Voice('en-us+klatt3', 155, 50),
  Voice('en-us+klatt4', 155, 75),
  Voice('en-us+klatt3', 155, 80),
  Voice('en-us+klatt5', 155, 50),
)

_Callback = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Speaker:
  """espeak-ng, initialised. It can be only once a process: use `speaker()`.

  Threads may share a speaker; they take turns.
  """

  def __init__(self):
    """Loads and initialises the library.

    Raises:
      ImportError: the wheel `espeakng-loader` is not installed.
      RuntimeError: the library does not start.
    """
    try:
      import espeakng_loader
    except ImportError as error:
      raise ImportError(
        "speaking needs espeak-ng: pip install 'ttt_jax[speech]' (the wheel espeakng-loader)"
      ) from error
    self._data = pathlib.Path(espeakng_loader.get_data_path())
    self._library = ctypes.CDLL(espeakng_loader.get_library_path())
    self._lock = threading.Lock()
    self._chunks: list[np.ndarray] = []
    self._callback = _Callback(self._receive)  # kept, or it would be collected
    self._rate = self._library.espeak_Initialize(
      _SYNCHRONOUS, 0, str(self._data).encode(), _DONT_EXIT
    )
    if self._rate <= 0:
      raise RuntimeError(f'espeak-ng does not start with the data in {self._data}')
    self._library.espeak_SetSynthCallback(self._callback)
    self._voice_dir = tempfile.TemporaryDirectory(prefix='little_world_voices_')
    self._voice_files: dict[str, bytes] = {}

  def _receive(self, samples, count: int, _events) -> int:
    if samples and count > 0:
      self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0

  def _voice_file(self, name: str) -> bytes:
    """Writes a voice definition like that of `name`, but without flutter.

    Flutter is a slow wobble of the pitch whose phase runs on from one utterance to the
    next and cannot be reset: with it, what is said depends on what was said before.
    """
    if name not in self._voice_files:
      language, _, variant = name.partition('+')
      languages = self._data / 'lang'
      found = [p for p in languages.rglob('*') if p.name.lower() == language.lower()]
      variant_path = self._data / 'voices' / '!v' / variant
      if not found or not variant_path.is_file():
        raise ValueError(f'espeak-ng has no voice {name!r}, of the form language+variant')
      lines = found[0].read_text('utf-8').splitlines()
      for line in variant_path.read_text('utf-8').splitlines():
        # The variant's own name and (no) language must not replace those above.
        if line.split()[:1] not in (['language'], ['name']):
          lines.append(line)
      # A '+' in the path would be taken for the start of a variant's name.
      path = pathlib.Path(self._voice_dir.name) / name.replace('+', '_')
      path.write_text('\n'.join([*lines, 'flutter 0', '']), 'utf-8')
      self._voice_files[name] = str(path).encode()
    return self._voice_files[name]

  def _synthesise(self, text: str, voice: Voice) -> np.ndarray:
    """`text` as `[S]` int16 samples at the engine's own rate."""
    library = self._library
    status = library.espeak_ng_SetVoiceByFile(self._voice_file(voice.name))
    if status != 0:
      raise RuntimeError(f'espeak-ng refuses the voice {voice.name!r} (status {status})')
    settings = {_RATE: voice.rate, _VOLUME: 100, _PITCH: voice.pitch, _RANGE: 50}
    for parameter, value in settings.items():
      library.espeak_SetParameter(parameter, value, 0)
    # How far the engine's last block was filled shifts what comes next by 64 samples, now
    # and then. The same word before every text brings it to the same place.
    self._run(_PRIMER)
    return self._run(text)

  def _run(self, text: str) -> np.ndarray:
    library = self._library
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
    self._chunks.clear()
    data = text.encode() + b'\0'
    size = ctypes.c_size_t(len(data))
    if library.espeak_Synth(data, size, 0, 1, 0, _UTF8, None, None) != 0:
      raise RuntimeError(f'espeak-ng cannot say {text!r}')
    library.espeak_Synchronize()
    return np.concatenate([np.zeros(0, np.int16), *self._chunks])

  def say(self, text: str, voice: Voice = VOICES[0]) -> np.ndarray:
    """Speaks.

    Args:
      text: English.
      voice: how to say it.

    Returns:
      `[S]` float32 samples at SAMPLE_RATE, normalised in level, with 40 ms before and
      after the speech. For klatt voices the same for the same arguments, whatever was
      said before.

    Raises:
      ValueError: nothing can be heard of `text`, or there is no such voice.
    """
    if not text.strip() or '\0' in text:
      raise ValueError(f'nothing to say in {text!r}')
    with self._lock:
      samples = self._synthesise(text, voice)
    if not samples.any():
      raise ValueError(f'nothing can be heard of {text!r}')
    wave = samples.astype(np.float32) / 32768
    wave = audio_io.resample(wave, self._rate, SAMPLE_RATE)
    return _trim(spectrogram.normalise_level(wave))


def _trim(wave: np.ndarray) -> np.ndarray:
  """Leaves just _EDGE samples before and after what can be heard, all else being silence."""
  level = spectrogram.loudness(wave)
  audible = np.flatnonzero(level > _AUDIBLE * level.max())
  wave = np.pad(wave, _EDGE)
  return np.ascontiguousarray(wave[audible[0] : audible[-1] + 1 + 2 * _EDGE])


@functools.cache
def speaker() -> Speaker:
  """The process's one speaker, made at the first call. Raises what `Speaker` raises."""
  return Speaker()


def say(text: str, voice: Voice = VOICES[0]) -> np.ndarray:
  """Speaks with the process's one speaker: see `Speaker.say`."""
  return speaker().say(text, voice)
