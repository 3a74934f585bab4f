"""Sound files read piece by piece."""

import numpy as np
import pytest
import soundfile

from ttt_jax.codecs import audio_io, audio_stream


def write(path, seconds: float, rate: int, channels: int = 2, **how):
  noise = np.random.default_rng(0).normal(size=(int(seconds * rate), channels)) * 0.1
  soundfile.write(path, noise, rate, **how)
  return path


@pytest.mark.parametrize('rate', [8000, 16_000, 44_100])
@pytest.mark.parametrize('seconds', [0.01, 10, 25.3])  # 10: a whole piece and no more
def test_pieces_are_the_whole_file(tmp_path, rate, seconds):
  path = write(tmp_path / 'a.flac', seconds, rate)
  pieces = list(audio_stream.read(path, 16_000))
  wanted = audio_io.resample(*audio_io.read_wav(path), 16_000)
  assert len(pieces) >= seconds / 10 and all(piece.dtype == np.float32 for piece in pieces)
  np.testing.assert_allclose(np.concatenate(pieces), wanted, atol=1e-6)


def test_what_is_no_sound(tmp_path):
  cases = {
    'gone': 'no such sound file',
    'empty': '0 bytes',
    'text': 'not a readable sound file',
    'hollow': 'holds no samples',
    'nan': r'sample 5 is nan',
  }
  (tmp_path / 'empty').touch()
  (tmp_path / 'text').write_text('not a sound')
  write(tmp_path / 'hollow', 0, 8000, format='WAV')
  broken = np.zeros(100)
  broken[5] = np.nan
  soundfile.write(tmp_path / 'nan', broken, 8000, format='WAV', subtype='FLOAT')
  for name, match in cases.items():
    with pytest.raises(audio_io.AudioError, match=f'{name}: .*{match}'):
      list(audio_stream.read(tmp_path / name, 16_000))
