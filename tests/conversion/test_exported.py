"""The files that an export ships, against our own network and decoder."""

import dataclasses
import functools
import itertools
import json
import pathlib
import shutil
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest
import torch
import transformers
from conftest import make_config

import ttt_jax
from ttt_jax import config as config_lib
from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.conversion import families, table
from ttt_jax.diffusion import corruption
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder

FILES = ('configuration_ttt.py', 'modeling_ttt.py')
FOLDER = pathlib.Path(ttt_jax.__file__).parent / 'conversion' / 'exported'
SAMPLING = (
  *('block_size', 'steps_per_block', 'guidance', 'text_temperature', 'audio_temperature'),
  *('max_text', 'max_audio'),
)
ROWS = 40  # of the embedding; the last ones are padding

VOCABULARY = vocabulary_lib.Vocabulary(
  **{'size': 32, 'audio_start': 12, 'codebook_start': 12, 'codebook_size': 16},
  **{'turn_start': 8, 'turn_end': 9, 'begin_audio': 10, 'begin_last': 11},
  **{'end_prompt': 28, 'end_inner': 29, 'end_last': 30, 'mask': 31, 'tokenizer': 'none'},
)

FAMILIES = {
  'Qwen2': {'qkv_bias': True, 'qk_norm': False, 'tied': True},
  'Qwen3': {'qkv_bias': False, 'qk_norm': True, 'tied': False},
  'Llama': {'qkv_bias': False, 'qk_norm': False, 'tied': False},
}


def sampling_of(*values):
  """Settings of decoding by the likeliest."""
  names = (*SAMPLING[:3], 'max_text', 'max_audio')
  changes = dict(zip(names, values, strict=True))
  return dataclasses.replace(make_config().sampling, **changes)


class Case(NamedTuple):
  """How audio is seen and decoded."""

  mask: config_lib.Mask
  sampling: config_lib.Sampling
  vocabulary: vocabulary_lib.Vocabulary = VOCABULARY


def sections(case):
  """As an export holds them."""
  made = {name: dataclasses.asdict(part) for name, part in case._asdict().items()}
  return made | {'sampling': {name: made['sampling'][name] for name in SAMPLING}}


CASES = {
  'span': Case(config_lib.Mask('span', 3, False), sampling_of(4, 2, 0.0, 10, 10)),
  # Blocks of the mask that are not those of decoding, and steps that reveal nothing.
  'block': Case(config_lib.Mask('block', 3, False), sampling_of(4, 5, 0.0, 10, 10)),
  'causal': Case(config_lib.Mask('span', 3, True), sampling_of(5, 3, 0.0, 10, 10)),
  'causal block': Case(config_lib.Mask('block', 2, True), sampling_of(4, 2, 1.5, 10, 10)),
  'end as text': Case(
    config_lib.Mask('block', 3, True),
    sampling_of(4, 2, 0.0, 10, 10),
    dataclasses.replace(VOCABULARY, end_prompt=7),
  ),
}

# Spans of a user, ended in either class, of the model, and such as still grow; one document
# ends in audio where the next begins with some, and one where the next begins with an end.
DOCUMENTS = (
  [8, 1, 10, 12, 13, 14, 15, 28, 7, 9, 2, 10, 16, 28, 17, 18, 29, 3, 11, 31, 20, 31, 30, 9],
  [8, 4, 11, 21, 22, 31, 31, 31, 31, 31],
  [14, 15, 16, 17, 28, 9, 8, 10, 12, 13],
  [7, 8, 10, 23, 24, 25, 26, 7, 5, 6, 9, 8, 10, 28, 5, 10, 30, 9],
)
CUTS = (0, 9, 17, 19), (0, 3), (0, 5), (0, 3, 9, 13, 15)  # never inside a span


def their_class(family, what):
  return getattr(transformers, family + what)


@functools.cache
def both(family):
  """Their random model, our network, and the same parameters for it."""
  config = dataclasses.replace(make_config().model, width=64, head_width=16, **FAMILIES[family])
  values = families.config_of(config, ROWS, 'float32', VOCABULARY.turn_end, 64)
  values |= {'eos_token_id': None, 'max_position_embeddings': 64}
  theirs = their_class(family, 'ForCausalLM')(their_class(family, 'Config').from_dict(values))
  rng = np.random.default_rng(1)
  with torch.no_grad():
    for name, parameter in theirs.named_parameters():
      noise = torch.tensor(rng.normal(size=parameter.shape), dtype=torch.float32)
      if parameter.dim() == 1:
        parameter.copy_(0.1 * noise + ('norm' in name))
      else:  # large, so that what is said changes from token to token
        parameter.copy_(2 * noise / parameter.shape[1] ** 0.5)
    theirs.get_output_embeddings().weight[VOCABULARY.size :] *= 3  # padding would win
  tensors = {name: tensor.detach().numpy() for name, tensor in theirs.named_parameters()}
  params = table.to_ours(tensors, config, ROWS)
  return theirs.eval(), transformer.Transformer(config, ROWS), params


def write(folder, family, case, **changes):
  """An export of the model, as a user gets it."""
  both(family)[0].save_pretrained(folder)
  path = folder / 'config.json'
  config = json.loads(path.read_text())
  config['auto_map'] = {
    'AutoConfig': f'configuration_ttt.TtT{family}Config',
    'AutoModelForCausalLM': f'modeling_ttt.TtT{family}ForCausalLM',
  }
  config['ttt'] = sections(case)
  path.write_text(json.dumps({**config, **changes}))
  for name in FILES:
    shutil.copy(FOLDER / name, folder)
  return folder


def load(folder, **settings):
  auto = transformers.AutoModelForCausalLM
  return auto.from_pretrained(folder, trust_remote_code=True, **settings)


@pytest.fixture(scope='module', autouse=True)
def one_thread():
  """Threads that wait for each other take far longer than these small models."""
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  """Loads the export of a family and a case, each once."""

  @functools.cache
  def get(family, case):
    return load(write(tmp_path_factory.mktemp('export'), family, CASES[case]))

  return get


def our_answers(family, vocabulary, sampling, mask):
  """Our decoder's to each of `prompts()`, one by one: few shapes are compiled so."""
  _, network, params = both(family)
  speak = decoder.Decoder(network, params, vocabulary, sampling, mask)
  return [answer for prompt in prompts() for answer in speak([prompt])]


@functools.cache
def our_logits(family, name, length=32):
  """Ours of each of `DOCUMENTS`."""
  case = CASES[name]
  _, model, params = both(family)
  ids, ends = np.zeros((2, len(DOCUMENTS), length), np.int32)
  for i, tokens in enumerate(DOCUMENTS):
    tokens = np.array(tokens)
    spans = case.vocabulary.spans(tokens)
    groups = mask_lib.document_groups(tokens, spans, case.mask, case.vocabulary)
    ids[i, : len(tokens)], ends[i, : len(tokens)] = tokens, mask_lib.group_ends(groups)
  positions = np.broadcast_to(np.arange(length), ids.shape)
  logits = jax.jit(model.apply)({'params': params}, ids, positions, 0 * ends, ends)
  return [np.asarray(row[: len(tokens), :ROWS]) for row, tokens in zip(logits, DOCUMENTS)]


def padded(side, padding):
  """`DOCUMENTS` as a batch, and its mask."""
  longest = max(map(len, DOCUMENTS))
  ids, real = (
    torch.full((len(DOCUMENTS), longest), padding),
    torch.zeros(len(DOCUMENTS), longest),
  )
  for i, tokens in enumerate(DOCUMENTS):
    where = slice(len(tokens)) if side == 'right' else slice(longest - len(tokens), None)
    ids[i, where], real[i, where] = torch.tensor(tokens), 1
  return ids, real.long()


EACH = [(family, 'span') for family in FAMILIES] + [('Qwen2', case) for case in list(CASES)[1:]]


@pytest.mark.parametrize('family,case', EACH)
@torch.no_grad()
def test_hybrid_logits_are_ours(exported, family, case):
  model, wanted = exported(family, case), our_logits(family, case)
  ends = CASES[case].vocabulary.end_prompt
  for side, padding in itertools.product(('right', 'left'), (13, ends)):
    ids, real = padded(side, padding)
    logits = model(ids, attention_mask=real).logits
    for row, keep, ours in zip(logits, real.bool(), wanted):
      np.testing.assert_allclose(row[keep], ours, atol=1e-4)
  # Packed into one row, told apart by positions alone.
  ids = torch.tensor([sum(DOCUMENTS, [])])
  positions = torch.cat([torch.arange(len(tokens)) for tokens in DOCUMENTS])[None]
  packed = model(ids, position_ids=positions, use_cache=False).logits[0]
  np.testing.assert_allclose(packed, np.concatenate(wanted), atol=1e-4)


@pytest.mark.parametrize('family,case', EACH)
@torch.no_grad()
def test_a_cache_changes_nothing(exported, family, case):
  model = exported(family, case)
  for tokens, cuts, wanted in zip(DOCUMENTS, CUTS, our_logits(family, case)):
    ids = torch.tensor([[13, 13, *tokens]] * 2)
    real = torch.ones_like(ids)
    real[:, :2] = 0
    cache, start, found = transformers.DynamicCache(), 0, []
    for end in (*(cut + 2 for cut in cuts), ids.shape[1]):
      new = ids[:, start:end]
      out = model(new, attention_mask=real[:, :end], past_key_values=cache)
      found, start = [*found, out.logits[1]], end
    np.testing.assert_allclose(torch.cat(found)[2:], wanted, atol=1e-4)


def test_padding_sees_itself_alone(exported):
  # A row that sees nothing at all is not a number in some implementations of attention.
  model, (ids, real) = exported('Qwen2', 'span'), padded('left', 13)
  sections = (model._section(name) for name in ('vocabulary', 'mask'))
  seen = sys.modules[type(model).__module__].hybrid_mask(ids, real, None, 0, *sections)[:, 0]
  itself = torch.eye(ids.shape[1], dtype=torch.bool).expand(seen.shape)
  assert seen[1, :3].equal(itself[1, :3]) and (real[1, :3] == 0).all()
  assert (seen.any(1) & seen.any(2)).all()


@torch.no_grad()
def test_eager_attention_gives_the_same(exported, tmp_path):
  ids, real = padded('left', 13)
  wanted = exported('Qwen2', 'span')(ids, attention_mask=real).logits
  model = load(write(tmp_path, 'Qwen2', CASES['span']), attn_implementation='eager')
  found = model(ids, attention_mask=real).logits
  np.testing.assert_allclose(found[real > 0], wanted[real > 0], atol=1e-4)


@pytest.mark.parametrize('kind', ['sdpa', 'eager'])
@torch.no_grad()
def test_a_mask_of_four_axes_is_taken_as_it_is(tmp_path, kind):
  model = load(write(tmp_path, 'Llama', CASES['span']), attn_implementation=kind)
  ids = torch.tensor(DOCUMENTS[:1])
  causal = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
  found, wanted = model(ids, attention_mask=causal).logits, both('Llama')[0](ids).logits
  np.testing.assert_allclose(found, wanted, atol=1e-4)
  assert not np.allclose(model(ids).logits, wanted, atol=1e-2)


def prompts():
  """Some with a user's span, ended or not; half of them end by beginning audio."""
  rng, made = np.random.default_rng(2), []
  for i in range(12):
    heard = [10, *rng.integers(12, 28, 1 + i % 5)]
    ended = ([7], [28], [28, 7, 9, 8], [9, 8, 5])[i % 4]
    began = ([], [10], [], [11])[i // 3]
    made.append(np.array([8, *heard, *ended, *began]))
  return made


@pytest.mark.parametrize('family,case', EACH)
def test_greedy_answers_are_those_of_our_decoder(exported, family, case):
  model, (mask, sampling, vocabulary) = exported(family, case), CASES[case]
  ours = our_answers(family, vocabulary, sampling, mask)
  for prompt, wanted in zip(prompts(), ours):
    found = model.generate(torch.tensor(prompt)[None])[0].tolist()
    assert found == [*prompt, *wanted.tokens]
  # Everything that can happen happened.
  spans = [(a.tokens, *span) for a in ours for span in vocabulary.spans(a.tokens)]
  assert max(len(vocabulary.spans(answer.tokens)) for answer in ours) > 1
  longest = 1 + sampling.max_audio // sampling.block_size * sampling.block_size
  assert {end - start == longest for _, start, end in spans} == {True, False}
  assert {answer.tokens[-1] == vocabulary.turn_end for answer in ours} == {True, False}
  assert not any(vocabulary.end_prompt in answer.tokens for answer in ours)


@pytest.mark.parametrize('case', ['span', 'end as text'])
def test_guidance_hides_what_training_hides(exported, case):
  vocabulary, rng = CASES[case].vocabulary, np.random.default_rng(0)
  code = sys.modules[type(exported('Qwen2', case)).__module__]
  special = [7, 9, 10, 11, 12, 13, 28, 29, 30]
  for _ in range(300):
    tokens = rng.choice(special, rng.integers(1, 12))
    spans = vocabulary.spans(tokens)
    ours = ~vocabulary.is_prompt(tokens, spans)
    hidden = corruption.condition(tokens, spans, ours, vocabulary)
    found = code.without_condition(tokens.tolist(), vocabulary)
    assert found == np.where(hidden, vocabulary.mask, tokens).tolist()


def test_answers_of_a_batch_are_those_of_its_rows(exported, tmp_path):
  wanted = [
    exported('Qwen2', 'block').generate(torch.tensor(p)[None])[0].tolist() for p in prompts()
  ]
  longest = max(map(len, prompts()))
  for pad, filler in (None, VOCABULARY.turn_end), (3, 3):
    folder = write(tmp_path / str(pad), 'Qwen2', CASES['block'], pad_token_id=pad)
    ids, real = torch.zeros(2, len(wanted), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts()):
      where = slice(len(prompt)) if i % 2 else slice(longest - len(prompt), None)
      ids[i, where], real[i, where] = torch.tensor(prompt), 1
    found = load(folder).generate(ids, attention_mask=real)
    assert found.dtype == torch.long and found[:, :longest].equal(ids)
    answers = [full[len(prompt) :] for full, prompt in zip(wanted, prompts())]
    width = max(map(len, answers))
    assert found[:, longest:].tolist() == [a + [filler] * (width - len(a)) for a in answers]


def test_settings_given_to_generate_go_before_those_of_the_config(exported):
  model, case = exported('Qwen3', 'span'), CASES['span']
  sampling = sampling_of(3, 2, 1.0, 4, 6)
  for prompt, wanted in zip(prompts(), our_answers('Qwen3', VOCABULARY, sampling, case.mask)):
    found = model.generate(
      torch.tensor(prompt)[None], **{name: getattr(sampling, name) for name in SAMPLING}
    )
    assert found[0].tolist() == [*prompt, *wanted.tokens]


@torch.no_grad()
def test_drawing_follows_the_softmax_of_the_allowed(exported):
  model, prompt, count = exported('Llama', 'span'), torch.tensor([[8, 1, 2, 3]]), 500
  odds = torch.softmax(model(prompt).logits[0, -1, : VOCABULARY.audio_start] / 4, -1)

  def draw(seed, rows):
    generator = torch.Generator().manual_seed(seed)
    settings = {'text_temperature': 4.0, 'max_text': 1, 'generator': generator}
    return model.generate(prompt.expand(rows, -1), **settings)[:, -1]

  found = torch.bincount(draw(0, count), minlength=len(odds)) / count
  assert len(found) == len(odds) and odds.max() < 0.7
  np.testing.assert_allclose(found, odds, atol=4 * (0.25 / count) ** 0.5)
  assert draw(1, 20).equal(draw(1, 20)) and not draw(1, 20).equal(draw(2, 20))


def test_a_temperature_is_of_text_or_of_audio(exported):
  model, prompt = exported('Llama', 'span'), torch.tensor([[8, 10]])

  def spoken(**warm):
    found = model.generate(prompt, generator=torch.Generator().manual_seed(0), **warm)[0, 2:]
    is_end = VOCABULARY.is_end(found.numpy())
    return found.tolist(), found[: int(is_end.argmax()) + 1].tolist()

  (all_likeliest, span), (text_drawn, same) = spoken(), spoken(text_temperature=50.0)
  assert same == span and text_drawn != all_likeliest
  assert spoken(audio_temperature=50.0)[1] != span


def test_what_is_drawn_keeps_to_its_class(exported):
  # Hot enough to draw anything that may be drawn.
  warm = {'text_temperature': 50.0, 'audio_temperature': 50.0}
  prompts, generator = torch.tensor([[8, 10]] * 60), torch.Generator().manual_seed(0)
  model = exported('Llama', 'span')
  answers = model.generate(prompts, generator=generator, **warm)[:, 1:].numpy()
  never = {VOCABULARY.mask, VOCABULARY.end_prompt}
  assert set(answers.flat) == set(range(VOCABULARY.size)) - never
  for answer in answers:
    for start, end in VOCABULARY.spans(answer):
      assert answer[start - 1] in (VOCABULARY.begin_audio, VOCABULARY.begin_last)
      assert VOCABULARY.is_end(answer[start:end]).tolist() == [False] * (end - start - 1) + [
        True
      ]


@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_the_folder_is_also_the_plain_text_model(tmp_path, exported, family):
  folder, ids = write(tmp_path, family, CASES['span']), torch.tensor([[8, 1, 2, 3, 10, 9]])
  wanted, cls = both(family)[0](ids).logits, their_class(family, 'ForCausalLM')
  for made in (cls, transformers.AutoModelForCausalLM):
    model, report = made.from_pretrained(folder, output_loading_info=True)
    assert type(model) is cls and not any(report.values())
    assert model(ids).logits.equal(wanted)
  np.testing.assert_allclose(exported(family, 'span')(ids).logits, wanted, atol=1e-4)


@pytest.mark.parametrize('family', FAMILIES)
@torch.no_grad()
def test_saved_again_it_is_the_same(tmp_path, exported, family):
  model, ids = exported(family, 'causal block'), torch.tensor(DOCUMENTS[:1])
  model.save_pretrained(tmp_path)
  again = load(tmp_path)
  assert again.config.ttt == model.config.ttt
  assert again.config.model_type == family.lower()
  assert again(ids).logits.equal(model(ids).logits)


@pytest.mark.parametrize(
  'section,change,match',
  [
    ('vocabulary', {'mask': None}, 'ttt.vocabulary.mask is None'),
    ('vocabulary', {'size': ROWS + 1}, 'ttt.vocabulary.size is 41, but must be 32 to 40'),
    ('vocabulary', {'size': 31}, 'ttt.vocabulary.size is 31'),
    ('vocabulary', {'begin_last': 12}, 'must lie below audio_start'),
    ('vocabulary', {'end_inner': 11}, 'must lie below audio_start'),
    ('mask', {'audio': 'all'}, "ttt.mask.audio is 'all', but must be 'span' or 'block'"),
    ('mask', {'block_size': 0}, 'ttt.mask.block_size is 0'),
    ('mask', {'causal_prompt': 1}, 'ttt.mask.causal_prompt is 1'),
    ('mask', {'size': 1}, 'unknown in ttt.mask: size'),
    ('sampling', {'max_audio': 3}, 'sampling.block_size is 4, but must be at most max_audio'),
    ('sampling', {'audio_temperature': -1}, 'sampling.audio_temperature is -1'),
    ('sampling', {'guidance': -1}, 'sampling.guidance is -1'),
    ('sampling', {'max_text': 1.5}, 'sampling.max_text is 1.5'),
  ],
)
def test_what_does_not_fit_is_refused(tmp_path, section, change, match):
  ttt = sections(CASES['span'])
  ttt[section] |= change
  with pytest.raises(ValueError, match=match):
    load(write(tmp_path, 'Qwen2', CASES['span'], ttt=ttt))
  del ttt[section]
  with pytest.raises(ValueError, match=f'missing in ttt: {section}'):
    load(write(tmp_path, 'Qwen2', CASES['span'], ttt=ttt))


def test_settings_without_ours_make_no_model(tmp_path):
  with pytest.raises(
    ValueError, match='ttt is None, but must hold: vocabulary, mask, sampling'
  ):
    load(write(tmp_path, 'Qwen2', CASES['span'], ttt=None))


def test_a_window_is_refused(tmp_path):
  window = {'use_sliding_window': True, 'sliding_window': 4, 'max_window_layers': 0}
  window['layer_types'] = ['sliding_attention'] * 2
  with pytest.raises(ValueError, match='use_sliding_window must be false'):
    load(write(tmp_path, 'Qwen2', CASES['span'], **window))


def test_calls_that_cannot_be_served_are_refused(exported, tmp_path):
  model, ids = exported('Qwen2', 'span'), torch.tensor([[8, 1]])
  for prompt, match in ([[8, 31]], 'token 31'), ([[8, 32]], 'token 32'), ([[]], 'empty'):
    with pytest.raises(ValueError, match=match):
      model.generate(torch.tensor(prompt, dtype=torch.long))
  with pytest.raises(ValueError, match='unknown in sampling: max_new_tokens'):
    model.generate(ids, max_new_tokens=3)
  with pytest.raises(ValueError, match='the mask follows from input_ids'):
    model(inputs_embeds=torch.zeros(1, 2, 64))
  with pytest.raises(ValueError, match=r'attention_mask is \[1, 3\], but must be \[1, 2\]'):
    model(ids, attention_mask=torch.ones(1, 3))
  model = load(write(tmp_path, 'Qwen2', CASES['span']), attn_implementation='flex_attention')
  with pytest.raises(ValueError, match="'sdpa' or 'eager'.*flex_attention"):
    model(ids)
