"""The port of GLM-4-Voice's tokenizer, held to its original code and to transformers.

glm4voice_tiny/ has a random model of that code, and what the code made of two rows of log-mels:
one cut at the end of a block, where nothing behind it is seen, and one of 600 frames of sound,
which end inside a block, and silence behind them.
"""

import functools
import importlib
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import soundfile
import transformers
from conftest import make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import numpy as safetensors_numpy
from scripted import Scripted
from test_kinds import install

from ttt_jax import assets as assets_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import audio_io, audio_stream, codec, kinds
from ttt_jax.codecs.glm4voice import encoder, features, tokenizer, weights
from ttt_jax.codecs.glm4voice import shape as shape_lib
from ttt_jax.sampling import session

PAGE = (pathlib.Path(kinds.__file__).parents[2] / 'docs' / 'codecs.md').read_text()
TINY = pathlib.Path(__file__).parent / 'glm4voice_tiny'
RATE = features.SAMPLE_RATE
WINDOW = features.SECONDS * RATE
TOKEN = 1280  # samples
SHAPE = shape_lib.read(TINY)
PARAMS = weights.read(TINY, SHAPE)
FRAMES = 320, 600  # of sound


@pytest.fixture(scope='module')
def expected():
  return safetensors_numpy.load_file(TINY / 'expected.safetensors')


@pytest.fixture(scope='module')
def many():
  return tokenizer.Glm4Voice.from_released(TINY)


@pytest.fixture(scope='module')
def one():
  return tokenizer.Glm4Voice.from_released(TINY, jax.devices()[:1])


@pytest.fixture(scope='module')
def theirs():
  return transformers.WhisperFeatureExtractor(feature_size=128)


def sound(size: int, seed: int = 0) -> np.ndarray:
  """Noise that swells and dies away, so that frames differ."""
  noise = np.random.default_rng(seed).normal(size=size)
  return (0.1 * noise * np.sin(np.arange(size) / 3000 + seed)).astype(np.float32)


@functools.partial(jax.jit, static_argnames='method')
def _run(mels, frames, method):
  with jax.default_matmul_precision('highest'):
    return encoder.Encoder(SHAPE).apply({'params': PARAMS}, mels, frames, method=method)


def run(mels, frames, method='__call__') -> np.ndarray:
  return np.asarray(_run(mels, np.array(frames), method))


def as_a_batch(expected, filling: float) -> np.ndarray:
  mels = np.full((2, 640, 128), filling, np.float32)
  for row in range(2):
    mels[row, : FRAMES[row]] = expected[f'mel.{row}'].T[: FRAMES[row]]
  return mels


# --- the network ---


@pytest.mark.parametrize('filling', [0.0, 9.0])
def test_tokens_and_hidden_states_are_those_of_the_original(expected, filling):
  mels = as_a_batch(expected, filling)
  hidden, ids = run(mels, FRAMES, 'hidden'), run(mels, FRAMES)
  for row in range(2):
    wanted = expected[f'tokens.{row}']
    np.testing.assert_array_equal(ids[row, : len(wanted)], wanted)
    close = hidden[row, : len(wanted)] - expected[f'hidden.{row}']
    assert np.abs(close).max() < 1e-5


def test_a_token_sees_its_block_and_what_came_before(expected):
  mels = as_a_batch(expected, 0.0)[1:, :480]
  whole = run(mels, [480], 'hidden')[0]
  size = SHAPE.quantize_causal_block_size // SHAPE.pooling_kernel_size  # tokens of a block
  for frame, first in ((478, 5 * size), (0, 0), (170, 2 * size)):
    other = mels.copy()
    other[0, frame] += 1
    changed = np.abs(run(other, [480], 'hidden')[0] - whole).max(1) > 0
    assert changed.tolist() == [place >= first for place in range(len(whole))]


def test_parameters_name_their_axes():
  boxed = encoder.Encoder(SHAPE).parameters()
  assert boxed['layers']['fc1']['weight'].names == ('layers', 'mlp', 'embed')
  assert boxed['codebook']['weight'].names == ('vocabulary', 'embed')


# --- log-mels ---


@pytest.mark.parametrize('size', [1, 300, TOKEN, TOKEN + 1, 3 * RATE + 77, WINDOW])
def test_log_mels_are_those_of_whisper(theirs, size):
  wave = sound(size)
  filled = {'padding': 'longest', 'pad_to_multiple_of': TOKEN}
  wanted = theirs([wave], sampling_rate=RATE, return_tensors='np', **filled).input_features[0]
  made = features.log_mel(wave, TOKEN)
  assert made.dtype == np.float32 and made.shape == wanted.T.shape
  np.testing.assert_allclose(made, wanted.T, atol=1e-4)


def test_log_mels_of_silence_and_of_full_scale(theirs):
  for wave in (np.zeros(RATE, np.float32), np.sign(sound(RATE))):
    wanted = theirs([wave], sampling_rate=RATE, return_tensors='np', padding='longest')
    np.testing.assert_allclose(features.log_mel(wave), wanted.input_features[0].T, atol=1e-4)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3 * WINDOW // 2), max_size=6))
def test_windows_are_the_same_however_chunks_are_cut(sizes):
  wave = np.arange(sum(sizes), dtype=np.float32)
  chunks = np.split(wave, np.cumsum(sizes)[:-1]) if sizes else []
  cut = list(features.windows(chunks))
  assert [len(window) for window in cut[:-1]] == [WINDOW] * (len(cut) - 1)
  assert all(0 < len(window) <= WINDOW for window in cut)
  np.testing.assert_array_equal(np.concatenate([*cut, np.zeros(0)]), wave)


# --- whole sounds ---


@pytest.mark.parametrize('size', [1, TOKEN - 1, TOKEN, TOKEN + 1, 5 * RATE + 200])
def test_a_clip_goes_the_way_of_the_original(one, theirs, size):
  """Their log-mels and mask, every eighth of which tells whether a token counts."""
  wave = sound(size, seed=1)
  filled = {'padding': 'longest', 'pad_to_multiple_of': TOKEN, 'return_attention_mask': True}
  made = theirs([wave], sampling_rate=RATE, return_tensors='np', **filled)
  mask = np.asarray(made.attention_mask)
  ids = run(np.asarray(made.input_features).transpose(0, 2, 1), mask.sum(1))
  wanted = ids[0][mask[0, ::2][::4] == 1]
  assert len(wanted) == -(-size // TOKEN)
  np.testing.assert_array_equal(one.encode(wave, RATE), wanted)


def test_a_batch_is_each_alone_on_any_number_of_devices(one, many):
  sizes = [900, 2 * RATE, 5 * RATE + 3, *range(4000, 28_000, 2500)]
  waves = [sound(size, seed) for seed, size in enumerate(sizes)]
  waves[1] = audio_io.resample(waves[1], RATE, 24_000)
  rates = [RATE, 24_000] + [RATE] * (len(waves) - 2)
  assert many._mesh.size == 8
  made, also = many.encode_batch(waves, rates), one.encode_batch(waves[::-1], rates[::-1])
  for wave, rate, ids, others in zip(waves, rates, made, also[::-1]):
    assert ids.dtype == np.int32 and len(set(ids.tolist())) > len(ids) // 4
    np.testing.assert_array_equal(ids, others)
    np.testing.assert_array_equal(ids, one.encode(wave, rate))
  np.testing.assert_array_equal(made[-1], many.encode(waves[-1], RATE))


def test_a_batch_lies_by_rows_on_all_devices(many):
  mels, frames = many._batch([sound(RATE)] * 3, many._buckets[0])
  made = many._program(many._laid, mels, frames)
  assert {shard.data.shape for shard in made.addressable_shards} == {(1, many._buckets[0])}
  assert len({shard.device for shard in made.addressable_shards}) == 8


def test_devices_exchange_nothing(many):
  program = many.lower().compile().as_text()
  assert 'num_partitions=8' in program
  assert not any(name in program for name in ('all-gather', 'all-reduce', 'collective-'))


def test_few_programs_serve_all_lengths(one):
  for size in (1, 500, 2 * RATE, 2 * RATE + 100, 3 * RATE):
    one.encode(sound(size), RATE)
  before = one._program._cache_size()
  for size in range(TOKEN, 3 * RATE, 7000):
    one.encode(sound(size), RATE)
  assert one._program._cache_size() == before <= len(one._buckets)


def test_a_long_sound_is_its_windows_joined(one, tmp_path):
  wave = sound(2 * WINDOW + 4 * RATE)
  parts = [one.encode(wave[i : i + WINDOW], RATE) for i in range(0, len(wave), WINDOW)]
  assert [len(part) for part in parts] == [375, 375, 50]
  np.testing.assert_array_equal(one.encode(wave, RATE), np.concatenate(parts))
  path = tmp_path / 'long.wav'
  soundfile.write(path, wave, RATE, subtype='FLOAT')
  streamed = list(one.encode_stream(audio_stream.read(path, RATE)))
  assert len(streamed) == 3
  np.testing.assert_array_equal(np.concatenate(streamed), np.concatenate(parts))


def test_it_listens_and_nothing_else(one):
  assert (one.frame_rate, one.codebook_size, one.sample_rate) == (12.5, 512, 16_000)
  for call in (lambda: one.decode([1]), one.decoder):
    with pytest.raises(codec.CodecError, match="'glm4voice' cannot .* .it can: encode."):
      call()
  with pytest.raises(audio_io.AudioError, match='wave 1 to encode'):
    one.encode_batch([sound(9), np.zeros(0, np.float32)], [RATE, RATE])
  assert one.encode_batch([], []) == []


# --- files ---


def test_saving_and_loading(one, tmp_path):
  one.save(tmp_path / 'codec')
  for folder in (tmp_path / 'codec', TINY):  # the second as its authors release it
    made = kinds.load_codec(folder)
    assert isinstance(made, tokenizer.Glm4Voice) and made.fingerprint == one.fingerprint
    np.testing.assert_array_equal(made.encode(sound(900), RATE), one.encode(sound(900), RATE))


def test_the_fingerprint_covers_every_tensor_and_size(one):
  for key, array in jax.tree_util.tree_leaves_with_path(PARAMS):
    changed = array.copy()
    changed.flat[-1] += 1e-3
    params = jax.tree_util.tree_map_with_path(
      lambda path, x, key=key, changed=changed: changed if path == key else x, PARAMS
    )
    assert tokenizer.Glm4Voice(SHAPE, params).fingerprint != one.fingerprint
  other = shape_lib.Shape(**vars(SHAPE) | {'encoder_attention_heads': 8})
  assert tokenizer.Glm4Voice(other, PARAMS).fingerprint != one.fingerprint


VOCODER = """
import numpy as np

def speak(ids):
  return np.repeat(ids / np.float32(100), 1764).astype(np.float32)
"""


def test_the_decoder_of_the_page_speaks_for_runs_and_data_of_the_built_in_kind(
  one, tmp_path, monkeypatch
):
  (code,) = [x for x in re.findall(r'```python\n(.*?)```', PAGE, re.S) if '(tokenizer.Gl' in x]
  site, assets = tmp_path / 'site', tmp_path / 'run' / 'assets'
  install(site, 'speaking', code, {'glm4voice_speaking': 'speaking:Speaking'})
  (site / 'my_vocoder.py').write_text(VOCODER)
  monkeypatch.syspath_prepend(site)
  text = tokenizer_lib.SentencePiece.train(['one two three four user assistant'] * 99, 280)
  vocabulary = vocabulary_lib.Vocabulary.extend(text, one.codebook_size)
  made = assets_lib.Assets(vocabulary, text, one, {'answer': ['answer']})
  made.save(assets)
  (command,) = re.findall(r'Speaking\.load[^`]*', PAGE)
  monkeypatch.chdir(tmp_path)
  exec(command, {'Speaking': importlib.import_module('speaking').Speaking})
  found = assets_lib.load(assets)
  assert found.codec.kind == 'glm4voice_speaking' and found.codec.abilities > one.abilities
  found.refuse_mismatch(made.fingerprints, 'data')
  wave = sound(RATE)
  np.testing.assert_array_equal(found.codec.encode(wave, RATE), one.encode(wave, RATE))
  talk = session.Session(make_config(), found, {})
  v = vocabulary
  said = [v.begin_last, *v.from_codes([3, 50]), v.end_last, v.turn_end]
  talk.decoder = Scripted(said, True, [1], v)
  reply = talk.reply('answer', 'one')
  assert len(reply.wave) == 2 * TOKEN and abs(reply.wave[TOKEN // 2] - 0.03) < 1e-3
  with pytest.raises(codec.CodecError, match='cannot decode'):
    one.decode([3])


@pytest.fixture
def folder(tmp_path):
  for name in ('config.json', 'model.safetensors'):
    shutil.copy(TINY / name, tmp_path / name)
  return tmp_path


def refused(folder, match):
  with pytest.raises(codec.CodecError, match=match):
    kinds.load_codec(folder)


@pytest.mark.parametrize(
  'key,value,match',
  [
    ('d_model', None, 'd_model is missing'),
    ('d_model', 'wide', "d_model is missing .* 'wide'"),
    ('d_model', 66, 'd_model is 66, but must be a multiple of encoder_attention_heads, 4'),
    ('quantize_position', True, 'quantize_position'),
    ('pooling_position', 2, 'pooling_position is 2, but must be quantize_position, 3'),
    ('pooling_type', 'max', "pooling_type is 'max', but only 'avg'"),
    ('pooling_type', None, 'pooling_type is missing'),
    ('pooling_kernel_size', 7, 'a multiple of pooling_kernel_size, 7'),
    ('encoder_causal_convolution', False, 'encoder_causal_convolution is False'),
    ('encoder_causal_attention', True, 'encoder_causal_attention is True'),
    ('quantize_causal_encoder', True, 'quantize_causal_encoder is True'),
    ('activation_function', 'relu', "activation_function is 'relu'"),
    ('num_mel_bins', 80, 'num_mel_bins is 80'),
    ('max_source_positions', 750, 'max_source_positions is 750'),
    ('encoder_gating', 1, 'encoder_gating is 1, a setting not known'),
    ('quantize_levels', 2, 'quantize_levels is 2, a setting not known'),
  ],
)
def test_other_networks_are_refused(folder, key, value, match):
  path = folder / 'config.json'
  values = json.loads(path.read_text()) | {key: value}
  path.write_text(json.dumps({name: v for name, v in values.items() if v is not None}))
  refused(folder, f'config.json: .*{match}')


def test_other_log_mels_are_refused(folder):
  path = folder / 'preprocessor_config.json'
  fine = transformers.WhisperFeatureExtractor(feature_size=128).to_dict()
  path.write_text(json.dumps(fine))
  kinds.load_codec(folder)
  path.write_text(json.dumps(fine | {'hop_length': 320}))
  refused(folder, 'preprocessor_config.json: hop_length is 320, but only 160')
  path.write_text('{"hop')
  refused(folder, 'preprocessor_config.json: cannot be read')


def test_settings_that_change_no_token_do_not_matter(folder, one):
  path = folder / 'config.json'
  inert = {
    **{'vocab_size': 51866, 'decoder_layers': 32, 'encoder_layerdrop': 0.0},
    **{'quantize_encoder_only': True, 'quantize_ema_decay': 0.99, 'dropout': 0.0},
  }
  path.write_text(json.dumps(json.loads(path.read_text()) | inert))
  assert kinds.load_codec(folder).fingerprint == one.fingerprint


@pytest.mark.parametrize(
  'name,change,match',
  [
    ('conv1.weight', lambda x: None, 'conv1.weight is missing'),
    ('layers.2.fc1.bias', lambda x: None, 'layers.2.fc1.bias is missing'),
    (
      'layers.3.fc1.bias',
      lambda x: np.zeros(256, np.float32),
      'layers.3.fc1.bias is not known',
    ),
    ('conv2.weight', lambda x: x[:, :, :2].copy(), r'F32 \[64, 64, 2\], not F32 \[64, 64, 3\]'),
    ('codebook.weight', lambda x: x.astype(np.float16), 'codebook.weight is F16'),
    ('layers.1.fc2.weight', lambda x: x * np.nan, 'layers.1.fc2.weight is not finite'),
  ],
)
def test_other_tensors_are_refused(folder, name, change, match):
  path = folder / 'model.safetensors'
  tensors = safetensors_numpy.load_file(path)
  changed = change(tensors.pop(name, None))
  safetensors_numpy.save_file(tensors | ({} if changed is None else {name: changed}), path)
  refused(folder, rf'(?s)model.safetensors: .*{match}')


def test_damaged_and_missing_files(folder, one):
  path = folder / 'model.safetensors'
  content = path.read_bytes()
  for damaged in (content[: len(content) // 2], b'', b'none' * 99):
    path.write_bytes(damaged)
    refused(folder, 'model.safetensors: damaged')
  path.unlink()
  refused(folder, 'model.safetensors: missing')
  one.save(folder)
  (folder / 'config.json').unlink()
  refused(folder, 'config.json: cannot be read')
  (folder / 'config.json').write_text('[]')
  refused(folder, 'config.json: damaged')


def test_files_of_two_codecs(folder, one):
  one.save(folder)
  config = json.loads((folder / 'codec.json').read_text())
  (folder / 'codec.json').write_text(json.dumps(config | {'fingerprint': '0' * 16}))
  refused(folder, 'model.safetensors: the fingerprint is .* do not belong together')
