"""Whole checkpoints, from Hugging Face and back."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
import sources
import torch
import transformers
from conftest import make_config
from safetensors import numpy as safetensors_numpy

from ttt_jax import assets as assets_lib
from ttt_jax import chat, description, errors, folders, parameters
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs.glm4voice import tokenizer
from ttt_jax.conversion import extend, from_hf, table, tensors, to_hf
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder

CODES = 40
DEFAULTS = make_config()
OLD = tokenizer_lib.HuggingFace(sources.tokenizer_json()).size
AUTHORS = (
  *('<|begin_of_audio|>', '<|begin_of_quad|>', '<|end_of_audio|>'),
  *(f'<|audio_{i}|>' for i in range(6)),
  *('<|end_of_audio_new|>', '<|end_of_audio_span_last|>', '<|mask_token|>'),
)


def convert(source, out, **settings):
  return from_hf.convert(source, out, from_hf.Settings(**settings), DEFAULTS)


@pytest.fixture
def source(tmp_path):
  return sources.save(sources.make('qwen2'), tmp_path / 'source')


def same(a, b):
  flat, also = jax.tree.leaves(a), jax.tree.leaves(b)
  assert len(flat) == len(also)
  return all(
    x.dtype == y.dtype and (np.asarray(x) == np.asarray(y)).all() for x, y in zip(flat, also)
  )


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('family', sources.FAMILIES)
def test_from_there_and_back_and_from_there_again(family, dtype, tmp_path):
  theirs = sources.make(family, dtype=dtype)
  shards = {'max_shard_size': '30KB'} if dtype == torch.float32 else {}
  source = sources.save(theirs, tmp_path / 'source', **shards)
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs', shard_bytes=40_000)
  assert (tmp_path / 'theirs' / tensors.INDEX).exists()
  convert(tmp_path / 'theirs', tmp_path / 'again')
  params = parameters.restore(tmp_path / 'ours')
  assert same(params, parameters.restore(tmp_path / 'again'))
  assert description.config_of(tmp_path / 'ours') == description.config_of(tmp_path / 'again')
  assets, also = (assets_lib.load(tmp_path / x / 'assets') for x in ('ours', 'again'))
  assert assets.fingerprints == also.fingerprints and assets.vocabulary == also.vocabulary
  # What the tokenizer knew is what it was, bit for bit, in every tensor.
  exported = tensors.Folder(tmp_path / 'theirs')
  original = tensors.Folder(source)
  assert set(exported) == set(original)
  for name in original:
    wide = original.shapes[name][0] == sources.ROWS
    rows = slice(OLD if wide else None)
    np.testing.assert_array_equal(exported[name][rows], original[name][rows])
    assert exported[name].dtype == original[name].dtype
    assert not wide or len(exported[name]) == assets.vocabulary.size


def test_an_export_is_a_plain_model_of_text_too(source, tmp_path):
  theirs = transformers.Qwen2ForCausalLM.from_pretrained(source)
  config = convert(source, tmp_path / 'ours', audio_codebook=CODES)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  ids = torch.arange(2, 30)[None]
  for loader in (transformers.Qwen2ForCausalLM, transformers.AutoModelForCausalLM):
    again = loader.from_pretrained(tmp_path / 'theirs')
    assert type(again) is transformers.Qwen2ForCausalLM
    with torch.no_grad():
      wanted, got = theirs(ids).logits, again(ids).logits
    np.testing.assert_allclose(got[..., :OLD], wanted[..., :OLD], atol=1e-5)
  assets = assets_lib.load(tmp_path / 'ours' / 'assets')
  assert again.config.vocab_size == assets.vocabulary.size
  model = transformer.Transformer(config.model, assets.vocabulary.size)
  where = np.arange(ids.shape[1])[None]
  params = parameters.restore(tmp_path / 'ours')
  ours = model.apply({'params': params}, ids.numpy(), where, where * 0, where + 1)
  np.testing.assert_allclose(ours[..., : assets.vocabulary.size], got, atol=1e-4)


def test_an_export_tells_which_settings_of_decoding_it_does_not_know(
  source, tmp_path, monkeypatch
):
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  path = tmp_path / 'ours' / 'config.json'
  about = json.loads(path.read_text())
  about['config']['sampling'] |= {'top_k': 7, 'text_temperature': 0.5}
  path.write_text(json.dumps(about))
  said = []
  monkeypatch.setattr(
    to_hf.logging, 'warning', lambda text, *values: said.append(text % values)
  )
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  assert len(said) == 1 and 'sampling.top_k=7' in said[0]
  exported = json.loads((tmp_path / 'theirs' / 'config.json').read_text())
  assert exported['ttt']['sampling']['text_temperature'] == 0.5


def test_the_exported_tokenizer_has_the_ids_of_ours(source, tmp_path):
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'theirs')
  assets = assets_lib.load(tmp_path / 'ours' / 'assets')
  vocabulary = assets.vocabulary
  assert len(theirs) == vocabulary.size and theirs.eos_token_id == vocabulary.turn_end
  assert theirs.pad_token == '<|endoftext|>'
  for name, index in (vocabulary.names | vocabulary.audio_names).items():
    assert theirs.encode(name) == [index]
  turns = [chat.Turn('user', ['the fox jumps']), chat.Turn('system', ['x'])]
  ours = assets.template.prompt(turns)
  said = [{'role': 'user', 'content': 'the fox jumps'}, {'role': 'system', 'content': 'x'}]
  text = theirs.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
  assert theirs.encode(text) == ours.tolist()


def test_new_rows_are_drawn_like_the_old_ones(source, tmp_path):
  convert(source, tmp_path / 'a', audio_codebook=3000, seed=1)
  convert(source, tmp_path / 'b', audio_codebook=3000, seed=1)
  convert(source, tmp_path / 'c', audio_codebook=3000, seed=2)
  a, b, c = (parameters.read(tmp_path / x, 0, ('embedding',)) for x in 'abc')
  size = assets_lib.load(tmp_path / 'a' / 'assets').vocabulary.size
  assert size == OLD + 2 + 3000 + 4 and len(a) % 128 == 0
  assert (a == b).all() and (a[:OLD] == c[:OLD]).all() and (a[OLD:size] != c[OLD:size]).all()
  assert (a[size:] == 0).all()


def test_draws_have_the_mean_and_the_covariance_of_the_old_rows():
  rng = np.random.default_rng(0)
  table_ = np.zeros((60_000, 5), np.float32)
  table_[:300] = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5)) + 3
  old = table_[:300].copy()
  extend.draw_rows(table_, 300, 59_000, [0])
  assert (table_[:300] == old).all() and (table_[59_000:] == 0).all()
  new = table_[300:59_000]
  np.testing.assert_allclose(new.mean(0), old.mean(0), atol=0.05)
  wanted = np.cov(old.T, bias=True)
  np.testing.assert_allclose(np.cov(new.T), wanted, atol=0.03 * np.abs(wanted).max())


def test_rows_that_span_little_can_be_drawn_from():
  table_ = np.zeros((10, 8), np.float32)
  table_[:2] = [[1] * 8, [3] * 8]
  extend.draw_rows(table_, 2, 10, [0])
  assert np.isfinite(table_).all() and np.ptp(table_[2:], 1).max() < 0.1


def test_the_authors_release_keeps_its_ids(tmp_path):
  theirs = sources.make('qwen2')
  source = sources.save(theirs, tmp_path / 'source', *AUTHORS)
  convert(source, tmp_path / 'ours')
  vocabulary = assets_lib.load(tmp_path / 'ours' / 'assets').vocabulary
  # The end of a user's span is text class there, and the codes begin the audio class.
  assert vocabulary.begin_audio == OLD and vocabulary.end_prompt == OLD + 2
  assert vocabulary.audio_start == vocabulary.codebook_start == OLD + 3
  assert vocabulary.end_inner == OLD + 9 and vocabulary.mask == OLD + 11
  ours = parameters.read(tmp_path / 'ours', 0, ('embedding',))
  wanted = theirs.get_input_embeddings().weight.detach().numpy()
  np.testing.assert_array_equal(ours[: vocabulary.size], wanted[: vocabulary.size])
  assert (ours[vocabulary.size :] == 0).all()
  sources.edit(source, audio_token_id_start=OLD + 2)
  convert(source, tmp_path / 'moved')
  moved = assets_lib.load(tmp_path / 'moved' / 'assets').vocabulary
  assert moved.audio_start == OLD + 2 == moved.end_prompt
  to_hf.convert(tmp_path / 'moved', tmp_path / 'theirs')
  assert transformers.AutoTokenizer.from_pretrained(tmp_path / 'theirs').encode(
    '<|audio_1|>'
  ) == [vocabulary.codebook_start + 1]


def test_dtypes(source, tmp_path):
  convert(source, tmp_path / 'half', audio_codebook=CODES, dtype='bfloat16')
  half = parameters.restore(tmp_path / 'half')
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(half)} == {'bfloat16'}
  to_hf.convert(tmp_path / 'half', tmp_path / 'theirs', dtype='float32')
  assert set(tensors.Folder(tmp_path / 'theirs').dtypes.values()) == {'float32'}
  loaded = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path / 'theirs')
  assert loaded.dtype == torch.float32


def test_a_codec_and_prompts_travel_along(source, assets, tmp_path):
  assets.codec.save(tmp_path / 'codec')
  prompts = {'speak': ['say it']}
  size = assets.codec.codebook_size
  convert(
    source, tmp_path / 'a', audio_codebook=size, codec=str(tmp_path / 'codec'), prompts=prompts
  )
  to_hf.convert(tmp_path / 'a', tmp_path / 'b')
  convert(tmp_path / 'b', tmp_path / 'c')
  found = assets_lib.load(tmp_path / 'c' / 'assets')
  assert found.codec.fingerprint == assets.codec.fingerprint and found.prompts == prompts
  with pytest.raises(table.ConversionError, match='32 codes, but the vocabulary has 40'):
    convert(source, tmp_path / 'd', audio_codebook=CODES, codec=str(tmp_path / 'codec'))


def test_a_codec_that_is_elsewhere_says_so(source, tmp_path):
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  codec = assets_lib.load(tmp_path / 'ours' / 'assets').codec
  with pytest.raises(codec_lib.CodecError, match="codec 'source' .* --codec=FOLDER"):
    codec.decode(np.zeros(3, np.int32))
  with pytest.raises(codec_lib.CodecError, match='is not here'):
    codec.encode(np.zeros(100, np.float32), 16_000)


def test_a_model_gets_its_codec_later(source, assets, tmp_path):
  size = assets.codec.codebook_size
  convert(source, tmp_path / 'a', audio_codebook=size)
  to_hf.convert(tmp_path / 'a', tmp_path / 'b')
  assets.codec.save(tmp_path / 'codec')
  (tmp_path / 'prompts.json').write_text('{"speak": ["say it"]}')
  prompts = assets_lib.read_prompts(tmp_path / 'prompts.json')
  convert(tmp_path / 'b', tmp_path / 'c', codec=str(tmp_path / 'codec'), prompts=prompts)
  found = assets_lib.load(tmp_path / 'c' / 'assets')
  assert found.codec.fingerprint == assets.codec.fingerprint and found.prompts == prompts


@pytest.mark.parametrize('saved', [False, True])
def test_a_model_of_the_authors_listens_with_their_tokenizer(source, tmp_path, saved):
  released = pathlib.Path(__file__).parents[1] / 'codecs' / 'glm4voice_tiny'
  theirs = tokenizer.Glm4Voice.from_released(released)
  theirs.save(tmp_path / 'saved')
  folder = str(tmp_path / 'saved' if saved else released)
  convert(source, tmp_path / 'a', audio_codebook=theirs.codebook_size, codec=folder)
  to_hf.convert(tmp_path / 'a', tmp_path / 'b')
  convert(tmp_path / 'b', tmp_path / 'c')
  for name in 'ac':
    found = assets_lib.load(tmp_path / name / 'assets')
    assert found.codec.fingerprint == theirs.fingerprint
  wave = np.random.default_rng(0).normal(size=9000).astype(np.float32)
  np.testing.assert_array_equal(found.codec.encode(wave, 16_000), theirs.encode(wave, 16_000))
  with pytest.raises(table.ConversionError, match='512 codes, but the vocabulary has 40'):
    convert(source, tmp_path / 'd', audio_codebook=CODES, codec=folder)


def test_models_of_like_vocabularies_share_their_data(source, tmp_path):
  other = sources.save(sources.make('qwen2', rows=OLD + 9), tmp_path / 'other')
  convert(source, tmp_path / 'a', audio_codebook=CODES)
  convert(other, tmp_path / 'b', audio_codebook=CODES)
  a, b = (assets_lib.load(tmp_path / x / 'assets') for x in 'ab')
  a.refuse_mismatch(b.fingerprints, 'b')


def test_all_settings_of_a_run_come_back(source, tmp_path):
  changes = {'mask__audio': 'block', 'mask__causal_prompt': True, 'sampling__max_text': 3}
  changes |= {'objective__banom': 0.7, 'model__remat': 'none', 'seed': 5}
  settings = from_hf.Settings(audio_codebook=CODES)
  ours = from_hf.convert(source, tmp_path / 'a', settings, make_config(**changes))
  assert ours.mask.causal_prompt and ours.seed == 5 and ours.model.remat == 'none'
  to_hf.convert(tmp_path / 'a', tmp_path / 'b')
  assert convert(tmp_path / 'b', tmp_path / 'c') == ours
  theirs = json.loads((tmp_path / 'b' / 'config.json').read_text())['ttt']
  assert theirs['mask']['audio'] == 'block' and theirs['sampling']['max_text'] == 3


def test_the_exported_code_answers_as_we_do(source, tmp_path):
  config = convert(source, tmp_path / 'ours', audio_codebook=CODES)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / 'theirs', trust_remote_code=True
  )
  assert type(theirs).__name__ == 'TtTQwen2ForCausalLM'
  assets = assets_lib.load(tmp_path / 'ours' / 'assets')
  vocabulary = assets.vocabulary
  model = transformer.Transformer(config.model, vocabulary.size)
  params = parameters.restore(tmp_path / 'ours')
  speak = decoder.Decoder(model, params, vocabulary, config.sampling, config.mask)
  turns = [chat.Turn('user', [np.arange(5), 'the fox'])]
  prompt = np.append(assets.template.prompt(turns), vocabulary.begin_last)
  (answer,) = speak([prompt])
  said = theirs.generate(torch.tensor(prompt)[None])[0, len(prompt) :].tolist()
  assert said == answer.tokens.tolist() and vocabulary.is_audio(answer.tokens).any()
  ends = theirs.generation_config
  assert ends.eos_token_id == vocabulary.turn_end
  endoftext = assets.tokenizer.special('<|endoftext|>')
  assert ends.pad_token_id == theirs.config.pad_token_id == endoftext


def test_heads_get_rows_of_their_own(tmp_path):
  source = sources.save(sources.make('qwen2 untied'), tmp_path / 'source')
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  size = assets_lib.load(tmp_path / 'ours' / 'assets').vocabulary.size
  new = slice(OLD, size)
  embedding, head = (parameters.read(tmp_path / 'ours', 0, (k,)) for k in ('embedding', 'head'))
  old = sources.make('qwen2 untied').lm_head.weight.detach().numpy()[:OLD]
  assert head[new].any(1).all() and abs(head[new].std() / old.std() - 1) < 0.2
  assert abs(np.corrcoef(head[new].ravel(), embedding[new].ravel())[0, 1]) < 0.2


def test_nothing_is_rounded_and_what_is_left_out_does_not_count(tmp_path):
  source = sources.save(sources.make('llama', dtype=torch.bfloat16), tmp_path / 'source')
  path = source / tensors.SINGLE
  held = safetensors_numpy.load_file(path)
  held['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(8, np.float32)
  safetensors_numpy.save_file(held, path)
  config = convert(source, tmp_path / 'half', audio_codebook=CODES)
  assert config.model.dtype == 'bfloat16'
  half = parameters.restore(tmp_path / 'half')
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(half)} == {'bfloat16'}
  held['model.norm.weight'] = held['model.norm.weight'].astype(np.float32) + 1e-5
  safetensors_numpy.save_file(held, path)
  convert(source, tmp_path / 'mixed', audio_codebook=CODES)
  norm = parameters.read(tmp_path / 'mixed', 0, ('norm', 'scale'))
  np.testing.assert_array_equal(norm, held['model.norm.weight'])


@pytest.mark.parametrize('some', [AUTHORS[3:5], AUTHORS[-1:]])
def test_a_part_of_the_audio_tokens_is_refused(some, tmp_path):
  source = sources.save(sources.make('qwen2'), tmp_path / 'source', *some)
  with pytest.raises(table.ConversionError, match='source: the tokenizer has no token <.begin'):
    convert(source, tmp_path / 'ours', audio_codebook=CODES)


def test_a_vocabulary_with_audio_is_not_extended(tmp_path):
  source = sources.save(sources.make('qwen2'), tmp_path / 'source', *AUTHORS)
  with pytest.raises(table.ConversionError, match='has 6 codes: leave out --audio-codebook'):
    convert(source, tmp_path / 'ours', audio_codebook=CODES)
  convert(source, tmp_path / 'ours', audio_codebook=6)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  with pytest.raises(table.ConversionError, match='has 6 codes: leave out'):
    convert(tmp_path / 'theirs', tmp_path / 'again', audio_codebook=CODES)
  sources.edit(source, audio_token_id_start='many')
  with pytest.raises(table.ConversionError, match="audio_token_id_start is 'many'"):
    convert(source, tmp_path / 'other')


def test_a_failure_leaves_nothing_and_takes_nothing(source, tmp_path, monkeypatch):
  (tmp_path / 'ours.partial').mkdir()
  (tmp_path / 'ours.partial' / 'file').write_text('precious')
  before = sorted(tmp_path.rglob('*'))

  def fail(*_):
    raise OSError('disk full')

  monkeypatch.setattr(parameters, 'save', fail)
  with pytest.raises(folders.FolderError, match='cannot write to .*ours: disk full'):
    convert(source, tmp_path / 'ours', audio_codebook=CODES)
  assert sorted(tmp_path.rglob('*')) == before


def test_a_tied_file_may_repeat_its_head_but_not_another(source, tmp_path):
  path = source / tensors.SINGLE
  held = safetensors_numpy.load_file(path)
  held['lm_head.weight'] = held['model.embed_tokens.weight']
  held['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(8, np.float32)
  safetensors_numpy.save_file(held, path)
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  held['lm_head.weight'] = held['lm_head.weight'] + 1
  safetensors_numpy.save_file(held, path)
  with pytest.raises(table.ConversionError, match='set it to false'):
    convert(source, tmp_path / 'other', audio_codebook=CODES)


def test_every_tensor_that_does_not_fit_is_named_and_nothing_is_left_behind(source, tmp_path):
  path = source / tensors.SINGLE
  held = safetensors_numpy.load_file(path)
  del held['model.norm.weight']
  held['more'] = np.ones(2, np.float32)
  held['model.layers.0.mlp.up_proj.weight'] = np.ones((2, 3), np.float32)
  safetensors_numpy.save_file(held, path)
  with pytest.raises(table.ConversionError) as error:
    convert(source, tmp_path / 'ours', audio_codebook=CODES)
  for part in (
    'missing: model.norm.weight',
    'unexpected: more',
    'up_proj.weight: shape (2, 3)',
  ):
    assert part in str(error.value)
  assert not (tmp_path / 'ours').exists()


@pytest.mark.parametrize(
  'settings,said',
  [
    ({}, 'no audio tokens; --audio-codebook=CODES adds them'),
    ({'audio_codebook': CODES, 'codec': '/nowhere'}, 'is this a codec directory'),
  ],
)
def test_what_is_not_said_is_asked_for(source, tmp_path, settings, said):
  with pytest.raises(errors.UserError, match=said):
    convert(source, tmp_path / 'ours', **settings)


def test_used_folders_and_missing_sources_are_refused(source, tmp_path):
  (tmp_path / 'used').mkdir()
  (tmp_path / 'used' / 'file').write_text('precious')
  convert(source, tmp_path / 'ours', audio_codebook=CODES)
  with pytest.raises(folders.FolderError, match='used holds something already'):
    convert(source, tmp_path / 'used', audio_codebook=CODES)
  with pytest.raises(folders.FolderError, match='used holds something already'):
    to_hf.convert(tmp_path / 'ours', tmp_path / 'used')
  assert [path.name for path in (tmp_path / 'used').iterdir()] == ['file']
  with pytest.raises(table.ConversionError, match='not a folder: download .*hf download'):
    convert(tmp_path / 'Qwen' / 'Qwen2', tmp_path / 'new', audio_codebook=CODES)
  (source / 'config.json').write_text('[')
  with pytest.raises(table.ConversionError, match='config.json: not a config.json'):
    convert(source, tmp_path / 'new', audio_codebook=CODES)


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path):
  source = sources.save(sources.make('qwen2', rows=OLD - 5), tmp_path / 'source')
  with pytest.raises(
    table.ConversionError, match=f'{OLD} ids, but the embedding {OLD - 5} rows'
  ):
    convert(source, tmp_path / 'ours', audio_codebook=CODES)


@pytest.mark.parametrize('family', ['llama', 'qwen2', 'qwen3'])
def test_a_sentencepiece_source_is_extended_and_exported(assets, family, tmp_path):
  theirs = sources.make(family, rows=assets.tokenizer.size)
  theirs.save_pretrained(tmp_path / 'source')
  assets.tokenizer.save(tmp_path / 'source')
  convert(tmp_path / 'source', tmp_path / 'ours', audio_codebook=CODES)
  to_hf.convert(tmp_path / 'ours', tmp_path / 'theirs')
  vocabulary = assets_lib.load(tmp_path / 'ours' / 'assets').vocabulary
  text = 'three  seven\none two'
  for trust in (True, None):
    folder = tmp_path / 'theirs'
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
    assert tokenizer.encode('<|audio_3|>') == [vocabulary.codebook_start + 3]
    assert tokenizer.encode(text) == assets.tokenizer.encode(text)
    said = 'speak', '<|begin_of_audio|><|audio_1|><|end_of_audio|> three'
    turns = [chat.Turn('system', said[:1]), chat.Turn('user', [np.array([1]), ' three'])]
    whole = tokenizer.apply_chat_template(
      [{'role': turn.role, 'content': content} for turn, content in zip(turns, said)],
      add_generation_prompt=True,
    )['input_ids']
    template = assets_lib.load(tmp_path / 'ours' / 'assets').template
    assert whole == template.prompt(turns).tolist()
  (tmp_path / 'theirs' / 'tokenizer.json').unlink()
  shutil.rmtree(tmp_path / 'theirs' / from_hf.OWN)
  with pytest.raises(table.ConversionError, match='no audio tokens; --audio-codebook'):
    convert(tmp_path / 'theirs', tmp_path / 'again')


def test_prompts_are_checked(tmp_path):
  path = tmp_path / 'prompts.json'
  path.write_text(json.dumps({'speak': ['a', 'b']}))
  assert assets_lib.read_prompts(path) == {'speak': ['a', 'b']}
  path.write_text('{"speak": "a"}')
  with pytest.raises(assets_lib.AssetError, match='task: .prompt'):
    assets_lib.read_prompts(path)
  with pytest.raises(assets_lib.AssetError, match='no prompts of tasks'):
    assets_lib.read_prompts(tmp_path / 'none.json')
