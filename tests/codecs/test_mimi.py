"""Mimi as a plug-in, held to what transformers says when it is called itself."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors import torch as safetensors_torch

from ttt_jax.codecs import codec, kinds
from ttt_jax.codecs.plugins import mimi

CODES, LEVELS, FRAME = 32, 3, 1920


@pytest.fixture(scope='module')
def released(tmp_path_factory):
  """A tiny random model in the format of the authors' release."""
  torch.manual_seed(0)
  config = transformers.MimiConfig(
    **{'hidden_size': 16, 'num_filters': 2, 'num_hidden_layers': 1, 'intermediate_size': 16},
    **{'num_attention_heads': 2, 'num_key_value_heads': 2, 'upsample_groups': 16},
    **{'codebook_size': CODES, 'codebook_dim': 8, 'num_quantizers': 5},
    vector_quantization_hidden_dimension=8,
  )
  model = transformers.MimiModel(config)
  for name, buffer in model.named_buffers():  # as made, all codes are the same
    if name.endswith('embed_sum'):
      buffer.normal_(std=1e-3)
  folder = tmp_path_factory.mktemp('mimi') / 'released'
  model.save_pretrained(folder)
  return folder


@pytest.fixture(scope='module')
def coder(released):
  return mimi.Mimi.from_released(released, LEVELS)


def sound(size: int) -> np.ndarray:
  return np.random.default_rng(size).normal(size=size).astype(np.float32) * 0.3


def test_ids_and_samples_are_those_of_transformers(coder, released):
  theirs = transformers.MimiModel.from_pretrained(released).eval()
  wave = sound(5 * FRAME + 100)
  with torch.no_grad():
    codes = theirs.encode(torch.tensor(wave)[None, None], num_quantizers=LEVELS).audio_codes
    wanted = theirs.decode(codes).audio_values[0, 0].numpy()
  ids = coder.encode(wave, 24_000)
  frames = ids.reshape(-1, LEVELS)
  np.testing.assert_array_equal(frames % CODES, codes[0].T)
  assert (frames // CODES == np.arange(LEVELS)).all() and ids.dtype == np.int32
  assert all(len(set(level)) > 1 for level in frames.T.tolist())
  made = coder.decode(ids)
  assert made.dtype == np.float32 and made.std() > 0
  np.testing.assert_array_equal(made, wanted)
  np.testing.assert_array_equal(made, coder.decode(ids))


def test_what_it_says_of_itself(coder):
  assert (coder.sample_rate, coder.frame_rate) == (24_000, 12.5 * LEVELS)
  assert coder.codebook_size == CODES * LEVELS
  with pytest.raises(codec.CodecError, match="'mimi' cannot stream .it can: decode, encode."):
    coder.decoder()


@pytest.mark.parametrize('size', [1, FRAME, FRAME + 1])
def test_frames_are_whole(coder, size):
  frames = -(-size // FRAME)
  ids = coder.encode(sound(size), 24_000)
  assert len(ids) == LEVELS * frames and len(coder.decode(ids)) == FRAME * frames
  # A last frame that is not whole is left out.
  np.testing.assert_array_equal(coder.decode(ids[:-1]), coder.decode(ids[:-LEVELS]))
  assert len(coder.decode([])) == 0


def test_levels_out_of_order_are_refused(coder):
  with pytest.raises(codec.CodecError, match='id 40 at position 3 is of level 1, .* level 0'):
    coder.decode([1, 33, 65, 40, 33, 65])
  with pytest.raises(codec.CodecError, match=r'outside \[0, 96\)'):
    coder.decode([96])


def test_saving_and_loading(coder, released, tmp_path):
  coder.save(tmp_path / 'codec')
  made = kinds.load_codec(tmp_path / 'codec')
  assert type(made) is mimi.Mimi and made.fingerprint == coder.fingerprint
  np.testing.assert_array_equal(
    made.encode(sound(9000), 24_000), coder.encode(sound(9000), 24_000)
  )
  assert mimi.Mimi.from_released(released, 2).fingerprint != coder.fingerprint


def test_files_that_are_wrong(coder, released, tmp_path):
  with pytest.raises(codec.CodecError, match='levels is 6, but this Mimi has codebooks 1 to 5'):
    mimi.Mimi.from_released(released, 6)
  with pytest.raises(codec.CodecError, match='nowhere: holds no Mimi model'):
    mimi.Mimi.from_released(tmp_path / 'nowhere')
  coder.save(tmp_path / 'codec')
  path = tmp_path / 'codec' / 'codec.json'
  config = json.loads(path.read_text())
  for changed, match in (
    ({'fingerprint': '0' * 16}, 'do not belong together'),
    ({'levels': 2}, 'do not belong together'),
    ({'levels': None}, 'names no `levels`'),
  ):
    path.write_text(json.dumps(config | changed))
    with pytest.raises(codec.CodecError, match=f'codec.json: .*{match}'):
      kinds.load_codec(tmp_path / 'codec')
  shutil.copytree(released, tmp_path / 'cut')
  weights = tmp_path / 'cut' / 'model.safetensors'
  weights.write_bytes(weights.read_bytes()[:5000])
  with pytest.raises(codec.CodecError, match='cut: holds no Mimi model'):
    mimi.Mimi.from_released(tmp_path / 'cut')


def test_a_model_that_lacks_tensors_is_refused(released, tmp_path):
  shutil.copytree(released, tmp_path / 'less')
  path = tmp_path / 'less' / 'model.safetensors'
  tensors = safetensors_torch.load_file(path)
  tensors.pop(next(name for name in tensors if 'conv' in name))
  safetensors_torch.save_file(tensors, path, metadata={'format': 'pt'})
  with pytest.raises(
    codec.CodecError, match='less: model.safetensors lacks .*1 tensors in all'
  ):
    mimi.Mimi.from_released(tmp_path / 'less')
