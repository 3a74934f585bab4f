"""Spectrogram and codec, on spoken digits; needs the `speech` extra."""

import json
import subprocess
import sys

import machines
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

machines.package('espeakng_loader')
machines.package('pocketsphinx')
jiwer = machines.package('jiwer')

from data_pipelines.little_world import speech, sums
from ttt_jax.codecs import audio_io, codec, kinds, mel_vq, spectrogram
from ttt_jax.evaluation.recognisers import sphinx

RATE = spectrogram.SAMPLE_RATE


@pytest.fixture(scope='module')
def waves():
  world = sums.make_world(150, 0, seed=3)
  return [speech.say(text) for text in world.train_strings]


@pytest.fixture(scope='module')
def coder(waves):
  return mel_vq.MelVQ.fit(waves, RATE, codebook_size=256)


def _noise(size, seed=0):
  return (0.1 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


# --- the spectrogram ---


@pytest.mark.parametrize('size', [1, 160, 161, 5000])
def test_stft_agrees_with_scipy(size):
  wave = _noise(size)
  window = scipy.signal.get_window('hann', spectrogram.WINDOW, fftbins=True)
  oracle = scipy.signal.ShortTimeFFT(window, spectrogram.HOP, RATE, phase_shift=None)
  # scipy refuses what is shorter than half a window; zeros at the end change nothing.
  padded = np.pad(wave, (0, spectrogram.WINDOW))
  expected = oracle.stft(padded, p0=0, p1=-(-size // spectrogram.HOP)).T
  np.testing.assert_allclose(spectrogram.stft(wave), expected, atol=1e-4)


@settings(max_examples=30)
@given(st.integers(1, 3000))
def test_istft_undoes_stft(size):
  wave = _noise(size)
  back = spectrogram.istft(spectrogram.stft(wave))
  assert len(back) == -(-size // spectrogram.HOP) * spectrogram.HOP
  np.testing.assert_allclose(back[:size], wave, atol=1e-4)


def test_mel_filters_peak_at_their_mels():
  filters = spectrogram.mel_filters()
  assert filters.shape == (64, 321) and filters.min() == 0 and filters.max() <= 1
  hertz = np.arange(321) * 25.0
  centres = (filters * hertz).sum(1) / filters.sum(1)
  # Evenly spaced in mels: an independent statement of what the corners are.
  mels = 1127 * np.log(1 + centres[8:] / 700)
  np.testing.assert_allclose(np.diff(mels), np.diff(mels).mean(), rtol=0.3)
  # Between the outer peaks, neighbours share every frequency out: sums of 1.
  inside = (hertz > centres[1]) & (hertz < centres[-2])
  np.testing.assert_allclose(filters.sum(0)[inside], 1, atol=1e-5)


def test_a_tone_lights_the_filter_of_its_frequency():
  tone = (0.1 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)
  loudest = spectrogram.log_mel(tone)[50].argmax()
  assert abs(spectrogram.mel_filters()[loudest].argmax() * 25.0 - 1000) <= 50


def test_mel_inversion_gives_the_mels_back(waves):
  log_mels = spectrogram.log_mel(waves[0])
  magnitude = spectrogram.linear_magnitude(log_mels)
  assert magnitude.min() >= 0
  loud = log_mels > 0
  again = np.log(magnitude @ spectrogram.mel_filters().T + 1e-9)
  assert np.abs(again - log_mels)[loud].mean() < 0.02


def test_level_does_not_depend_on_gain_or_silence(waves):
  wave = waves[0]
  quiet = np.pad(wave * np.float32(0.01), (4000, 9000))
  again = spectrogram.normalise_level(quiet)[4000 : 4000 + len(wave)]
  np.testing.assert_allclose(again, spectrogram.normalise_level(wave), atol=1e-3)
  silence = np.zeros(1000, np.float32)
  np.testing.assert_array_equal(spectrogram.normalise_level(silence), silence)


def test_comfort_noise_lies_where_it_should():
  noise = spectrogram.comfort_noise(np.zeros(50_000, np.float32), snr_db=20)
  assert abs(20 * np.log10(noise.std() / spectrogram.LEVEL) + 20) < 0.2


# --- the codec ---


def test_what_is_coded_is_heard_right(coder):
  listener = sphinx.PocketSphinx.of(sums.DIGITS)
  texts = sums.make_world(0, 12, seed=4).test_strings
  ids = [coder.encode(speech.say(text), RATE) for text in texts]
  heard = [listener.hear(coder.decode(i), RATE) for i in ids]
  assert jiwer.wer(list(texts), heard) <= 0.05
  # And it is the ids that carry it: in the wrong order they say something else.
  shuffled = [np.random.default_rng(0).permutation(i) for i in ids]
  heard = [listener.hear(coder.decode(i), RATE) for i in shuffled]
  assert jiwer.wer(list(texts), heard) > 0.5


def test_rates_and_types(coder):
  assert (coder.kind, coder.sample_rate, coder.frame_rate) == ('mel_vq', 16_000, 25.0)
  assert coder.codebook_size == 256 and coder.frames_per_token == 4
  ids = coder.encode(_noise(5000), RATE)
  assert ids.dtype == np.int32 and ids.shape == (8,)
  wave = coder.decode(ids)
  assert wave.dtype == np.float32 and wave.shape == (8 * 640,)


@settings(max_examples=25)
@given(size=st.integers(1, 4000))
def test_number_of_tokens_follows_from_samples(coder, size):
  ids = coder.encode(_noise(size), RATE)
  assert len(ids) == int(np.ceil(size / 640))
  assert len(coder.encode(coder.decode(ids), RATE)) == len(ids)


def test_tokens_do_not_depend_on_gain_or_rate(coder, waves):
  ids = coder.encode(waves[1], RATE)
  louder = coder.encode(waves[1] * np.float32(3), RATE)
  assert np.mean(louder == ids) > 0.97
  resampled = coder.encode(audio_io.resample(waves[1], RATE, 22_050), 22_050)
  assert abs(len(resampled) - len(ids)) <= 1
  shared = min(len(ids), len(resampled))
  assert np.mean(resampled[:shared] == ids[:shared]) > 0.8


def test_encoding_again_stays_close(coder, waves):
  """Most tokens survive decode and encode, and those that change change to like ones."""
  same = spread = closeness = 0.0
  rng = np.random.default_rng(0)
  for wave in waves[:8]:
    ids = coder.encode(wave, RATE)
    again = coder.encode(coder.decode(ids), RATE)
    patches = coder._arrays['patches']
    same += np.mean(again == ids) / 8
    closeness += np.linalg.norm(patches[again] - patches[ids], axis=1).mean()
    spread += np.linalg.norm(patches[rng.permutation(ids)] - patches[ids], axis=1).mean()
  assert same > 0.4 and closeness < 0.3 * spread


def test_no_ids_no_sound(coder):
  decoder = coder.decoder()
  for wave in (
    coder.decode(np.zeros(0, np.int32)),
    coder.decode([]),
    decoder.push(np.zeros(0, np.int32)),
    decoder.flush(),
  ):
    assert wave.shape == (0,) and wave.dtype == np.float32


@settings(max_examples=15)
@given(blocks=st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=6))
def test_blocks_sound_as_the_whole_does(coder, blocks):
  decoder = coder.decoder()
  for _ in range(2):  # a sound that is over leaves no trace in the next
    parts = [decoder.push(np.array(block, np.int32)) for block in blocks]
    parts.append(decoder.flush())
    ids = [i for block in blocks for i in block]
    np.testing.assert_array_equal(np.concatenate(parts), coder.decode(np.array(ids, int)))


def test_sound_follows_the_ids_closely(coder, waves):
  decoder, ids = coder.decoder(), coder.encode(waves[0], RATE)
  given = np.cumsum([len(decoder.push(ids[i : i + 1])) for i in range(len(ids))])
  behind = 640 * np.arange(1, len(ids) + 1) - given
  assert behind.max() <= 0.17 * RATE


def test_everything_is_deterministic(coder, waves):
  again = mel_vq.MelVQ.fit(waves, RATE, codebook_size=256)
  assert again.fingerprint == coder.fingerprint
  other = mel_vq.MelVQ.fit(waves, RATE, codebook_size=256, seed=1)
  assert other.fingerprint != coder.fingerprint
  ids = coder.encode(waves[0], RATE)
  np.testing.assert_array_equal(coder.decode(ids), again.decode(ids))


def test_saving_and_loading(coder, waves, tmp_path):
  coder.save(tmp_path / 'codec')
  loaded = kinds.load_codec(tmp_path / 'codec')
  assert isinstance(loaded, mel_vq.MelVQ) and loaded.fingerprint == coder.fingerprint
  ids = coder.encode(waves[0], RATE)
  np.testing.assert_array_equal(loaded.encode(waves[0], RATE), ids)
  np.testing.assert_array_equal(loaded.decode(ids), coder.decode(ids))
  code = (
    'import sys; from ttt_jax.codecs import kinds;'
    'print(kinds.load_codec(sys.argv[1]).fingerprint)'
  )
  command = [sys.executable, '-c', code, str(tmp_path / 'codec')]
  out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
  assert out.strip() == coder.fingerprint


@pytest.mark.parametrize('name', ['mean', 'components', 'centroids', 'patches'])
def test_fingerprint_covers_every_array(coder, name):
  arrays = {key: value.copy() for key, value in coder._arrays.items()}
  arrays[name].flat[3] += 1e-3
  assert mel_vq.MelVQ(**arrays).fingerprint != coder.fingerprint


@pytest.mark.parametrize('bad', [256, -1, 99_999])
def test_ids_outside_the_codebook(coder, bad):
  for decode in (coder.decode, coder.decoder().push):
    with pytest.raises(codec.CodecError, match=rf'id {bad} at position 1 .*\[0, 256\)'):
      decode(np.array([3, bad, 3]))


@pytest.mark.parametrize('bad', [np.zeros((1, 3), np.int32), np.array([1.0, 2.0])])
def test_ids_of_other_shapes_and_types(coder, bad):
  for decode in (coder.decode, coder.decoder().push):
    with pytest.raises(codec.CodecError, match='ids to decode'):
      decode(bad)


def test_waves_that_are_none(coder):
  for bad in (np.zeros(0, np.float32), np.array([0, np.nan], np.float32), np.zeros(9)):
    with pytest.raises(audio_io.AudioError, match='wave to encode'):
      coder.encode(bad, RATE)


def test_silence_is_one_token_over_and_over(coder):
  assert len(set(coder.encode(np.zeros(RATE, np.float32), RATE).tolist())) == 1


def test_bad_fits(waves, monkeypatch):
  with pytest.raises(codec.CodecError, match='too few for a codebook of 512'):
    mel_vq.MelVQ.fit(waves[:1], RATE)
  monkeypatch.setattr(mel_vq, 'MAX_PATCHES', 100)
  with pytest.raises(codec.CodecError, match='too few for a codebook of 101'):
    mel_vq.MelVQ.fit(waves, RATE, codebook_size=101)
  with pytest.raises(codec.CodecError, match='too few'):
    mel_vq.MelVQ.fit([], RATE)
  with pytest.raises(ValueError, match='at least 1'):
    mel_vq.MelVQ.fit(waves, RATE, frames_per_token=0)
  with pytest.raises(audio_io.AudioError, match='wave to fit on'):
    mel_vq.MelVQ.fit([np.array([np.nan], np.float32)], RATE)


# --- damaged files ---


@pytest.fixture
def saved(coder, tmp_path):
  coder.save(tmp_path)
  return tmp_path


def _refused(directory, match):
  with pytest.raises(codec.CodecError, match=match):
    kinds.load_codec(directory)


def test_missing_files(saved):
  (saved / 'codec.npz').unlink()
  _refused(saved, 'codec.npz: missing')
  (saved / 'codec.json').unlink()
  _refused(saved, 'codec.json: cannot be read')


def test_damaged_json(saved):
  (saved / 'codec.json').write_text('{"kind": ')
  _refused(saved, 'codec.json: damaged, not JSON')
  (saved / 'codec.json').write_text('["mel_vq"]')
  _refused(saved, 'codec.json: damaged, names no')


def test_unknown_kind(saved):
  (saved / 'codec.json').write_text('{"kind": "gramophone"}')
  _refused(saved, "codec.json: unknown kind 'gramophone'; known: .*mel_vq")


@pytest.mark.parametrize('damage', ['cut', 'noise', 'empty', 'one array less', 'pickle'])
def test_damaged_arrays(saved, damage):
  path = saved / 'codec.npz'
  content = path.read_bytes()
  if damage == 'cut':
    path.write_bytes(content[: len(content) // 2])
  elif damage == 'noise':
    path.write_bytes(b'not a zip file' * 50)
  elif damage == 'empty':
    path.write_bytes(b'')
  elif damage == 'one array less':
    np.savez(path, mean=np.zeros(256, np.float32))
  else:
    np.savez(path, mean=np.array([object()], object))
  _refused(saved, 'codec.npz: damaged')


def test_files_of_two_codecs(saved, coder):
  config = json.loads((saved / 'codec.json').read_text())
  (saved / 'codec.json').write_text(json.dumps(config | {'fingerprint': '0' * 16}))
  _refused(saved, 'codec.npz: its fingerprint is .* do not belong together')
