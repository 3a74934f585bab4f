import numpy as np
import pytest

from data_pipelines import records
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation import items, voices


@pytest.fixture
def recorded(documents, tmp_path):
  """Makes an item of a data set that says its recording lies there."""
  for name in ('data/audio', 'elsewhere'):
    (tmp_path / name).mkdir(parents=True)
    wave = np.full(400, 0.25, np.float32)
    audio_io.write_wav(tmp_path / name / 'a.wav', wave, 16_000)
  (tmp_path / 'data' / 'link.wav').symlink_to(tmp_path / 'elsewhere' / 'a.wav')

  def item(audio):
    return items.Item('one', documents[0], {'audio': audio}, tmp_path / 'data')

  return item


def test_a_recording_below_the_data_set_is_read(recorded, assets):
  wave = voices.floor(voices.ORIGINAL, assets, recorded('audio/a.wav'))
  np.testing.assert_allclose(wave, 0.25, atol=1e-3)


@pytest.mark.parametrize('audio', ['../elsewhere/a.wav', 'link.wav', 'none.wav', 7, ['a.wav']])
def test_no_other_recording_is_read(recorded, assets, audio):
  with pytest.raises(records.DataError):
    voices.floor(voices.ORIGINAL, assets, recorded(audio))
