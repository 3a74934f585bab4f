import dataclasses

import numpy as np
import pytest

from ttt_jax import assets as assets_lib
from ttt_jax import chat, vocabulary
from ttt_jax.vocabulary import Vocabulary, VocabularyError


def test_classes_meet_at_audio_start(assets):
  v = assets.vocabulary
  text = (v.turn_start, v.turn_end, v.begin_audio, v.begin_last)
  audio = (*v.ends, v.mask, *v.from_codes(np.arange(v.codebook_size)))
  assert not v.is_audio(np.array(text)).any()
  assert v.is_audio(np.array(audio)).all()
  assert len({*text, *audio}) == len(text) + len(audio)
  assert max(audio) == v.size - 1


def test_codes_round_trip_and_outsiders_are_refused(assets):
  v = assets.vocabulary
  codes = np.array([0, 5, v.codebook_size - 1])
  np.testing.assert_array_equal(v.to_codes(v.from_codes(codes)), codes)
  with pytest.raises(VocabularyError, match=f'code {v.codebook_size} is outside'):
    v.from_codes(np.array([v.codebook_size]))


@pytest.mark.parametrize('token', [-1, 10**6, 'mask'])
def test_unknown_tokens_are_named(assets, token):
  v = assets.vocabulary
  token = v.mask if token == 'mask' else token
  with pytest.raises(VocabularyError, match=f'file.json: token {token} at position 1'):
    v.check(np.array([0, token]), 'file.json')


def test_saved_and_loaded_is_equal(assets, tmp_path):
  assets.vocabulary.save(tmp_path)
  assert Vocabulary.load(tmp_path) == assets.vocabulary
  (tmp_path / vocabulary.FILE).write_text('{"size": 3}')
  with pytest.raises(VocabularyError, match='vocabulary.json'):
    Vocabulary.load(tmp_path)


def test_fingerprint_tells_vocabularies_apart(assets):
  other = dataclasses.replace(assets.vocabulary, end_inner=assets.vocabulary.end_last)
  assert other.fingerprint != assets.vocabulary.fingerprint


@pytest.mark.parametrize('field,value', [('begin_audio', 10**4), ('mask', 0), ('size', 300)])
def test_impossible_vocabularies_are_refused(assets, field, value):
  with pytest.raises(VocabularyError):
    dataclasses.replace(assets.vocabulary, **{field: value})


def test_assets_round_trip_and_mismatch_names_both(assets, tmp_path):
  assets.save(tmp_path)
  loaded = assets_lib.load(tmp_path)
  assert loaded.fingerprints == assets.fingerprints and loaded.prompts == assets.prompts
  wrong = assets.fingerprints | {'codec': 'deadbeef'}
  with pytest.raises(assets_lib.AssetError, match=f'deadbeef.*{assets.codec.fingerprint}'):
    assets.refuse_mismatch(wrong, 'some data')


def test_template_spells_out_a_conversation(assets):
  v, t = assets.vocabulary, assets.tokenizer
  audio = np.array([3, 1])
  turns = [
    chat.Turn('user', [audio]),
    chat.Turn('assistant', ['one', audio, 'two', audio]),
  ]
  document = assets.template.document(turns)
  codes = v.from_codes(audio).tolist()
  newline = t.encode('\n')
  user = [v.turn_start, *t.encode('user\n'), v.begin_audio, *codes, v.end_prompt, v.turn_end]
  head = [v.turn_start, *t.encode('assistant\n')]
  answer = [*t.encode('one'), v.begin_audio, *codes, v.end_inner]
  answer += [*t.encode('two'), v.begin_last, *codes, v.end_last, v.turn_end, *newline]
  assert document.tokens.tolist() == [*user, *newline, *head, *answer]
  assert document.tokens[document.targets].tolist() == answer
  assert document.responses.tolist() == [False, True, True]
  prompt = assets.template.prompt(turns[:1])
  assert prompt.tolist() == [*user, *newline, *head]
  parts = assets.template.parts(np.array(answer))
  assert parts[0] == 'one' and parts[2] == 'two' and len(parts) == 4
  np.testing.assert_array_equal(parts[1], audio)
  np.testing.assert_array_equal(parts[3], audio)


def test_text_goes_on_behind_audio(assets):
  """In pieces that stand apart, and in words that audio cuts."""
  template, v = assets.template, assets.vocabulary
  apart = template.body(chat.Turn('assistant', ['one two', np.array([1, 2]), 'three']))
  assert template.text(np.array(apart)) == 'one two three'
  ids = assets.tokenizer.encode('seven six')
  audio = [v.begin_audio, *v.from_codes([3]), v.end_inner]
  for cut in range(len(ids) + 1):
    answer = [*ids[:cut], *audio, *ids[cut:], v.turn_end, *ids]
    assert template.text(np.array(answer)) == 'seven six'


def test_template_refuses_strangers(assets):
  with pytest.raises(ValueError, match='robot'):
    assets.template.prompt([chat.Turn('robot', ['hi'])])
  other = dataclasses.replace(assets.vocabulary, tokenizer='another')
  with pytest.raises(VocabularyError, match='another'):
    chat.Template(assets.tokenizer, other)
