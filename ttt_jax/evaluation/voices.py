"""The waveforms of an item: the model's answer, and the reference speech that it is held to."""

import numpy as np

from data_pipelines.reading import confined
from ttt_jax import assets as assets_lib
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation import items
from ttt_jax.sampling import events

# The reference speech after the codec alone, and as it was recorded.
CODEC, ORIGINAL = 'codec', 'original'
FLOORS = (CODEC, ORIGINAL)


def written(assets: assets_lib.Assets, answer: events.Answer) -> str:
  """All text of an answer."""
  return assets.template.text(answer.tokens)


def spoken(assets: assets_lib.Assets, answer: events.Answer) -> np.ndarray:
  """All audio of an answer, float32 [S]."""
  parts = assets.template.parts(answer.tokens)
  return _decode(assets, [part for part in parts if not isinstance(part, str)])


def floor(voice: str, assets: assets_lib.Assets, item: items.Item) -> np.ndarray | None:
  """Reference speech, float32 [S] at the codec's rate; None where there is none.

  Args:
    voice: CODEC or ORIGINAL.
    assets: of the data set.
    item: the record.

  Raises:
    DataError: there is no such recording, or it lies outside of the data set's folder.
    AudioError: it cannot be read.
  """
  if voice == CODEC:
    codes = [assets.vocabulary.to_codes(item.document.tokens[a:b]) for a, b in item.spans]
    return _decode(assets, codes) if codes else None
  if 'audio' not in item.about:
    return None
  wave, rate = audio_io.read_wav(confined.inside(item.directory, str(item.about['audio'])))
  return audio_io.resample(wave, rate, assets.codec.sample_rate)


def _decode(assets: assets_lib.Assets, codes: list[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0, np.float32), *map(assets.codec.decode, codes)])
