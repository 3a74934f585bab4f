import json
import os
import pickle

import pytest
import sources
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax import plain_file, tokenizer, vocabulary

# A mark that the file forgot to call special.
JSON = sources.tokenizer_json('<|audio_0|>', '<tool>')


@pytest.fixture(scope='module', params=['sentencepiece', 'tokenizer.json'])
def made(request, assets):
  if request.param == 'sentencepiece':
    return assets.tokenizer
  return tokenizer.HuggingFace(JSON).added(vocabulary.TEXT_SPECIALS)


@settings(max_examples=200)
@given(text=st.text(st.characters(exclude_categories=['Cs']), max_size=30))
def test_any_text_comes_back(made, text):
  # What the normalizer of the file composes is composed for good.
  normal = tokenizers.normalizers.NFC().normalize_str(text)
  text = normal if isinstance(made, tokenizer.HuggingFace) else text
  if isinstance(made, tokenizer.SentencePiece):
    # sentencepiece's own sign for a space, and the end of a C string, are not text to it.
    text = text.replace('\u2581', '').replace('\0', '')
  assert made.decode(made.encode(text)) == text


def test_specials_cannot_be_forged(made):
  marks = [made.special(name) for name in vocabulary.TEXT_SPECIALS]
  for name in (*vocabulary.TEXT_SPECIALS, '<|audio_0|>', '<|mask_token|>'):
    ids = made.encode(f'one {name} two')
    assert not set(ids) & set(marks) and made.decode(ids) == f'one {name} two'


def test_specials_are_no_text(made):
  ids = made.encode('one')
  assert made.decode([made.special('<|im_start|>'), *ids, made.special('<|im_end|>')]) == 'one'
  assert made.decode([*ids, made.size + 5]) == 'one'
  with pytest.raises(vocabulary.VocabularyError, match='no .*token|no control'):
    made.special('<|nothing|>')


def test_pickled_and_saved_tokenizers_are_the_same(made, tmp_path):
  made.save(tmp_path)
  for other in (pickle.loads(pickle.dumps(made)), tokenizer.load(tmp_path)):
    assert other.fingerprint == made.fingerprint and other.size == made.size
    assert other.encode('one two <|im_end|>') == made.encode('one two <|im_end|>')


def test_added_specials_come_behind_and_change_nothing_else(made):
  more = made.added(['<|im_end|>', '<|x|>', '<|y|>'])
  assert (more.special('<|x|>'), more.special('<|y|>')) == (made.size, made.size + 1)
  assert more.size == made.size + 2 and more.fingerprint != made.fingerprint
  assert more.special('<|im_end|>') == made.special('<|im_end|>')
  assert more.encode('one <|x|>') == made.encode('one <|x|>')


def test_ids_are_those_of_the_library():
  ours = tokenizer.HuggingFace(JSON)
  theirs = tokenizers.Tokenizer.from_str(JSON)
  for text in ('the quick brown fox', 'a <tool> e\u0301', '', ' jumps\n\n'):
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


def test_damaged_files_are_named(tmp_path):
  with pytest.raises(vocabulary.VocabularyError, match=f'{tmp_path}.*needs a tokenizer.json'):
    tokenizer.load(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{"added_tokens": []}')
  with pytest.raises(vocabulary.VocabularyError, match='tokenizer.json: not a tokenizer.json'):
    tokenizer.load(tmp_path)
  (tmp_path / 'tokenizer.json').unlink()
  (tmp_path / 'tokenizer.model').write_bytes(b'not a model')
  with pytest.raises(vocabulary.VocabularyError, match='not a sentencepiece model'):
    tokenizer.load(tmp_path)


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer.model'])
def test_files_that_may_have_no_end_are_not_begun(tmp_path, name):
  with (tmp_path / name).open('wb') as file:
    file.truncate(plain_file.BYTES + 1)  # takes no room on the disk
  with pytest.raises(vocabulary.VocabularyError, match=f'{name}: not a text .* at most'):
    tokenizer.load(tmp_path)
  (tmp_path / name).unlink()
  os.mkfifo(tmp_path / name)
  with pytest.raises(vocabulary.VocabularyError, match=f'{name}: not a .*no plain file'):
    tokenizer.load(tmp_path)


def test_ids_with_holes_cannot_be_added_to():
  content = json.loads(JSON)
  content['model']['vocab']['hole'] = 900
  with pytest.raises(vocabulary.VocabularyError, match='holes in its ids'):
    tokenizer.HuggingFace(json.dumps(content)).added(['<|x|>'])


def names(*, codes=4, order=None):
  """Names as the authors have them: begins, two ends below the codes, the rest above."""
  order = order or ['<|begin_of_audio|>', '<|begin_of_quad|>', '<|end_of_audio|>', 'codes']
  order = [*order, '<|end_of_audio_new|>', '<|end_of_audio_span_last|>', '<|mask_token|>']
  out = []
  for name in order:
    out += [f'<|audio_{i}|>' for i in range(codes)] if name == 'codes' else [name]
  return out


def test_a_whole_vocabulary_is_found_by_its_names():
  made = tokenizer.HuggingFace(sources.tokenizer_json(*names()))
  found = vocabulary.Vocabulary.find(made)
  start = made.special('<|audio_0|>')
  assert (found.audio_start, found.codebook_start, found.codebook_size) == (start, start, 4)
  assert found.end_prompt < start < found.end_inner and found.size == made.size
  assert vocabulary.Vocabulary.find(made, start - 1).audio_start == start - 1
  for name, index in found.names.items():
    assert made.special(name) == index


def test_a_vocabulary_with_gaps_is_refused():
  some = [name for name in names() if name not in ('<|mask_token|>', '<|begin_of_quad|>')]
  with pytest.raises(vocabulary.VocabularyError, match='no token <.begin_of_quad.>, <.mask_t'):
    vocabulary.Vocabulary.find(tokenizer.HuggingFace(sources.tokenizer_json(*some)))
  mixed = [*names(codes=2), '<|audio_2|>']
  with pytest.raises(vocabulary.VocabularyError, match=r'<.audio_2.> has id \d+, not'):
    vocabulary.Vocabulary.find(tokenizer.HuggingFace(sources.tokenizer_json(*mixed)))
