"""Sound in a page: a player and a spectrogram, both inside the file."""

import io
import wave as wave_lib

import numpy as np

from ttt_jax.codecs import audio_io, spectrogram
from ttt_jax.pages import markup, plots
from ttt_jax.pages.markup import element

_LOUDEST = 3.5  # natural log of mel magnitude that is drawn brightest

# From the floor to the brightest, in even steps.
_COLOURS = ((13, 14, 34), (56, 30, 104), (150, 45, 110), (232, 110, 64), (253, 236, 178))


def wav(samples: np.ndarray, sample_rate: int) -> bytes:
  """A WAV file, 16-bit mono.

  Args:
    samples: float32 [S]; beyond full scale they are clipped.
    sample_rate: samples a second.
  """
  stream = io.BytesIO()
  with wave_lib.open(stream, 'wb') as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(sample_rate)
    file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype('<i2').tobytes())
  return stream.getvalue()


def picture(samples: np.ndarray, sample_rate: int) -> bytes:
  """The log-mel spectrogram of float32 [S] samples, S > 0, as PNG; low sounds lie below."""
  heard = audio_io.resample(samples, sample_rate, spectrogram.SAMPLE_RATE)
  mels = spectrogram.log_mel(spectrogram.normalise_level(heard))
  scale = (mels - spectrogram.LOG_FLOOR) / (_LOUDEST - spectrogram.LOG_FLOOR)
  shades = 64
  pixels = np.rint(np.clip(scale, 0, 1) * (shades - 1)).astype(np.uint8).T[::-1]
  places = np.linspace(0, len(_COLOURS) - 1, shades)
  colours = np.array(_COLOURS, np.float64).T
  palette = np.stack([np.interp(places, range(len(_COLOURS)), c) for c in colours], 1)
  return plots.png(pixels, np.rint(palette).astype(np.uint8))


def player(
  samples: np.ndarray, sample_rate: int, label: str, width: float = 1.0
) -> markup.Html:
  """A spectrogram with a player below it.

  Args:
    samples: float32 [S], S > 0.
    sample_rate: samples a second.
    label: what it is, for those who do not see it.
    width: the part of the width that the spectrogram fills.
  """
  image = element(
    'img',
    src=plots.data_uri('image/png', picture(samples, sample_rate)),
    alt=f'Log-mel spectrogram, {label}',
    style=f'width:{100 * width:.1f}%',
  )
  sound = element(
    'audio',
    controls=True,
    preload='metadata',
    src=plots.data_uri('audio/wav', wav(samples, sample_rate)),
    aria_label=label,
  )
  return markup.join(element('div', image, class_='mel'), sound)
