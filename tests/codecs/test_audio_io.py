import re
import subprocess
import sys
import wave as wave_module

import numpy as np
import pytest
import soundfile

from ttt_jax.codecs import audio_io


def _tone(rate, seconds=0.5, frequency=440.0):
  return (0.5 * np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate)).astype(
    np.float32
  )


def test_written_file_is_16_bit_pcm_and_reads_back(tmp_path):
  path = tmp_path / 'tone.wav'
  tone = _tone(22_050)
  audio_io.write_wav(path, tone, 22_050)
  with wave_module.open(str(path)) as stored:  # another reader: the standard library's
    assert (stored.getsampwidth(), stored.getnchannels()) == (2, 1)
    assert stored.getframerate() == 22_050
    samples = np.frombuffer(stored.readframes(stored.getnframes()), '<i2')
  np.testing.assert_allclose(samples / 32768, tone, atol=1 / 32768)
  back, rate = audio_io.read_wav(path)
  assert rate == 22_050 and back.dtype == np.float32
  np.testing.assert_allclose(back, tone, atol=1 / 32768)


def test_loud_samples_are_clipped_not_wrapped(tmp_path):
  path = tmp_path / 'loud.wav'
  audio_io.write_wav(path, np.array([1.5, -1.5, 0.25], np.float32), 16_000)
  np.testing.assert_allclose(audio_io.read_wav(path)[0], [1, -1, 0.25], atol=1e-4)


def test_a_growing_file_is_whole_after_each_piece(tmp_path):
  path, tone = tmp_path / 'tone.wav', _tone(16_000)
  with audio_io.WavWriter(path, 16_000) as file:
    with wave_module.open(str(path)) as stored:
      assert stored.getnframes() == 0
    for end in (1, 3000, 8000):
      file.write(tone[len(soundfile.read(path)[0]) : end])
      found, rate = soundfile.read(path)
      assert rate == 16_000 and path.stat().st_size == 44 + 2 * end
      np.testing.assert_allclose(found, tone[:end], atol=1 / 32768)
  audio_io.write_wav(tmp_path / 'whole.wav', tone, 16_000)
  assert path.read_bytes() == (tmp_path / 'whole.wav').read_bytes()


def test_a_pipe_gets_sound_of_open_length(tmp_path):
  code = (
    'import sys, numpy as np; from ttt_jax.codecs import audio_io\n'
    'file = audio_io.WavWriter("-", 8000)\n'
    'for _ in range(3): file.write(np.full(50, 0.5, np.float32))\n'
    'file.close(); print("open", file=sys.stdout)'
  )
  command = [sys.executable, '-c', code]
  piped = subprocess.run(command, check=True, capture_output=True).stdout
  path = tmp_path / 'piped.wav'
  path.write_bytes(piped.removesuffix(b'open\n'))
  assert len(piped) == 44 + 300 + 5
  wave, rate = audio_io.read_wav(path)
  assert rate == 8000 and (wave == 0.5).all() and len(wave) == 150


def test_stereo_is_averaged_and_flac_is_read(tmp_path):
  path = tmp_path / 'stereo.flac'
  left = _tone(8_000)
  soundfile.write(path, np.stack([left, np.zeros_like(left)], 1), 8_000, subtype='PCM_24')
  mono, rate = audio_io.read_wav(path)
  assert rate == 8_000 and mono.shape == left.shape
  np.testing.assert_allclose(mono, left / 2, atol=1e-5)


@pytest.mark.parametrize('rates', [(44_100, 16_000), (8_000, 16_000), (22_050, 24_000)])
def test_resampling_keeps_the_tone(rates):
  from_rate, to_rate = rates
  out = audio_io.resample(_tone(from_rate), from_rate, to_rate)
  assert out.dtype == np.float32 and abs(len(out) - to_rate // 2) <= 1
  middle = slice(len(out) // 4, 3 * len(out) // 4)
  expected = _tone(to_rate, 0.6)[: len(out)]
  np.testing.assert_allclose(out[middle], expected[middle], atol=1e-3)


def test_missing_file(tmp_path):
  with pytest.raises(audio_io.AudioError, match='nowhere.wav.*no such'):
    audio_io.read_wav(tmp_path / 'nowhere.wav')


def test_empty_file(tmp_path):
  path = tmp_path / 'empty.wav'
  path.touch()
  with pytest.raises(audio_io.AudioError, match='empty.wav.*0 bytes'):
    audio_io.read_wav(path)


def test_non_audio_file(tmp_path):
  path = tmp_path / 'notes.wav'
  path.write_text('these are just words, ' * 20)
  with pytest.raises(audio_io.AudioError, match='notes.wav.*not a readable sound file'):
    audio_io.read_wav(path)


def test_file_without_samples(tmp_path):
  path = tmp_path / 'header.wav'
  soundfile.write(path, np.zeros(0, np.float32), 16_000)
  with pytest.raises(audio_io.AudioError, match='header.wav.*no samples'):
    audio_io.read_wav(path)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_samples_that_are_not_finite(tmp_path, value):
  path = tmp_path / 'broken.wav'
  samples = _tone(16_000)
  samples[17] = value
  soundfile.write(path, samples, 16_000, subtype='FLOAT')
  with pytest.raises(audio_io.AudioError, match='broken.wav: sample 17'):
    audio_io.read_wav(path)


def test_unwritable_paths(tmp_path):
  for path in (tmp_path / 'no_such_folder' / 'a.wav', tmp_path):
    with pytest.raises(audio_io.AudioError, match=re.escape(str(path)) + '.*cannot be written'):
      audio_io.write_wav(path, _tone(16_000), 16_000)
  file = audio_io.WavWriter(tmp_path / 'a.wav', 16_000)
  with file, pytest.raises(audio_io.AudioError, match='a.wav: holds no samples'):
    file.write(_tone(16_000, 0))


@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ([0.0, 0.1], 'list'),
    (np.zeros(4, np.float64), 'float64'),
    (np.zeros((2, 4), np.float32), 'channel'),
    (np.zeros(0, np.float32), 'no samples'),
    (np.array([0, np.nan], np.float32), 'sample 1 is nan'),
  ],
)
def test_what_is_no_waveform(bad, message):
  with pytest.raises(audio_io.AudioError, match=f'the question: .*{message}'):
    audio_io.check_wave(bad, 'the question')


@pytest.mark.parametrize('rate', [0, -8000, float('inf'), float('nan')])
def test_rates_must_be_positive(rate):
  with pytest.raises(audio_io.AudioError, match='to_rate'):
    audio_io.resample(_tone(16_000), 16_000, rate)


def test_codecs_do_not_need_jax():
  code = (
    'import sys, ttt_jax.codecs.mel_vq, ttt_jax.codecs.codec;'
    'assert not {"jax", "torch", "tensorflow"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
