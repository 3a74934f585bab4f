import subprocess
import sys
import zlib

import machines
import numpy as np
import pytest

machines.package('espeakng_loader')

from data_pipelines.little_world import speech, sums
from ttt_jax.codecs import spectrogram


def test_speech_is_16_khz_at_a_known_level():
  wave = speech.say('three plus four makes')
  assert wave.dtype == np.float32 and wave.ndim == 1
  assert 1.0 < len(wave) / speech.SAMPLE_RATE < 2.0
  assert np.abs(wave).max() <= 1
  np.testing.assert_allclose(wave, spectrogram.normalise_level(wave), atol=1e-3)


@pytest.mark.parametrize('voice', speech.VOICES, ids=lambda v: f'{v.name}-{v.pitch}')
def test_silence_is_trimmed_to_a_constant(voice):
  for text in ('one', 'six', 'the sum of two and eight'):
    wave = speech.say(text, voice)
    loud = np.flatnonzero(spectrogram.loudness(wave) > 0.01 * spectrogram.loudness(wave).max())
    # 40 ms, less the half window over which loudness is measured.
    assert abs(loud[0] - 640) <= 200 and abs(len(wave) - 1 - loud[-1] - 640) <= 200


def test_silence_on_either_side_is_trimmed():
  wave = speech.say('one')
  core = wave[640:-640]
  for silence in ((0, 9000), (9000, 0), (3000, 3000), (0, 0)):
    trimmed = speech._trim(np.pad(core, silence))
    assert abs(len(trimmed) - len(wave)) <= 500  # half the window of loudness, twice


def test_the_same_text_sounds_the_same_whatever_came_before():
  texts = [q.text for q in sums.make_world(0, 0, seed=1).test_questions[:60]]
  texts += sums.NUMBERS
  jobs = [(text, voice) for text in texts for voice in speech.VOICES[:2]]
  first = {job: speech.say(*job) for job in jobs}
  for i in np.random.default_rng(0).permutation(len(jobs)):
    np.testing.assert_array_equal(speech.say(*jobs[i]), first[jobs[i]], err_msg=str(jobs[i]))


def test_the_same_in_another_process():
  code = (
    'import zlib; from data_pipelines.little_world import speech;'
    'print(zlib.crc32(speech.say("nine minus four makes").tobytes()))'
  )
  out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
  assert int(out.stdout) == zlib.crc32(speech.say('nine minus four makes').tobytes())


def test_voices_differ():
  waves = [speech.say('seven', voice) for voice in speech.VOICES]
  for i, wave in enumerate(waves):
    for other in waves[:i]:
      assert wave.shape != other.shape or np.abs(wave - other).max() > 0.05


def test_rate_and_pitch_count():
  slow = speech.say('seven', speech.Voice('en-us+klatt3', 100, 50))
  assert len(slow) > 1.2 * len(speech.say('seven'))


@pytest.mark.parametrize('text', ['', '  \n', 'one\0two', '.'])
def test_nothing_to_say(text):
  with pytest.raises(ValueError, match='nothing'):
    speech.say(text)


@pytest.mark.parametrize('name', ['en-us+nobody', 'xx-yy+klatt3', 'en-us', 'en-us+../klatt3'])
def test_unknown_voices(name):
  with pytest.raises(ValueError, match='no voice'):
    speech.say('one', speech.Voice(name, 155, 50))


def test_there_is_one_speaker():
  assert speech.speaker() is speech.speaker()


def test_missing_wheel_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'espeakng_loader', None)
  with pytest.raises(ImportError, match=r"pip install 'ttt_jax\[speech\]'"):
    speech.Speaker()
