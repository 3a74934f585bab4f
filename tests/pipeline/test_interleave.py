import numpy as np
import pytest
from conftest import CODES, WORDS
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.converting import authors, interleave
from data_pipelines.converting.interleave import Word
from ttt_jax import chat

ids = st.lists(st.integers(10, 399), max_size=80)
audio = st.lists(st.integers(0, CODES - 1), max_size=160).map(lambda x: np.array(x, np.int32))
patterns = st.tuples(st.integers(1, 15), st.integers(1, 30)) | st.just(interleave.PATTERN)


def lengths(parts):
  return [('audio' if isinstance(p, np.ndarray) else 'text', len(p)) for p in parts]


def test_the_pattern_is_that_of_the_authors():
  # Lengths as counted in answers of theirs.
  for text, codes, wanted in (
    (12, 68, [('text', 12), ('audio', 68)]),
    (
      29,
      127,
      [('text', 13), ('audio', 26), ('text', 13), ('audio', 26), ('text', 3), ('audio', 75)],
    ),
  ):
    parts = interleave.by_count(list(range(text)), np.arange(codes))
    assert lengths(parts) == wanted


@given(ids, audio, patterns)
def test_only_the_last_chunks_are_of_free_length(text, codes, pattern):
  parts = interleave.by_count(text, codes, pattern)
  texts = [p for p in parts if isinstance(p, list)]
  spans = [p for p in parts if isinstance(p, np.ndarray)]
  assert sum(texts, []) == text
  assert np.concatenate([[], *spans]).tolist() == codes.tolist()
  assert all(len(p) for p in parts)
  assert all(len(chunk) == pattern[0] for chunk in texts[:-1])
  assert all(len(span) == pattern[1] for span in spans[:-1])
  kinds = [kind for kind, _ in lengths(parts)]
  assert all(one != other for one, other in zip(kinds, kinds[1:]))
  if text and len(codes):
    assert kinds[0] == 'text'
    assert kinds[-1] == 'audio'
    # No round was left out: either what is left is the last of the text or of the audio.
    assert len(texts[-1]) <= pattern[0] or len(spans[-1]) <= pattern[1]


@given(text=ids, codes=audio, pattern=patterns)
def test_text_and_audio_come_back_from_an_answer(assets, text, codes, pattern):
  vocabulary, template = assets.vocabulary, assets.template
  parts = interleave.by_count(text, codes, pattern)
  tokens = np.array(template.said(parts, response=True), np.int32)
  marks = np.isin(tokens, vocabulary.begins) | vocabulary.is_end(tokens)
  assert tokens[~vocabulary.is_audio(tokens) & ~marks].tolist() == text
  assert vocabulary.to_codes(tokens).tolist() == codes.tolist()
  vocabulary.check(tokens, 'answer')
  authors._check_spans(tokens, vocabulary)
  spans = vocabulary.spans(tokens)
  begins = [int(tokens[start - 1]) for start, _ in spans]
  ends = [int(tokens[end - 1]) for _, end in spans]
  assert (
    begins
    == ([vocabulary.begin_audio] * len(spans))[1:] + [vocabulary.begin_last][: len(spans)]
  )
  assert ends == ([vocabulary.end_inner] * len(spans))[1:] + [vocabulary.end_last][: len(spans)]
  document = template.document([chat.Turn('user', ['one']), chat.Turn('assistant', parts)])
  assert document.responses.all() and len(document.spans) == len(spans)


def test_patterns_of_nothing_are_refused():
  for pattern in ((0, 26), (13, 0), (-1, 1)):
    with pytest.raises(ValueError, match='two numbers from 1'):
      interleave.by_count([1], np.arange(3), pattern)


@given(data=st.data())
def test_words_stand_before_their_own_audio(assets, data):
  count = data.draw(st.integers(1, 30))
  said = data.draw(st.lists(st.sampled_from(WORDS), min_size=count, max_size=count))
  steps = data.draw(st.lists(st.integers(1, 20), min_size=count, max_size=count))
  size, rate = data.draw(st.integers(1, 8)), 12.5
  gap = data.draw(st.sampled_from([' ', ', ', '. ', '\n']))
  starts = np.cumsum([0, *steps])
  # Frame f is code f mod CODES, so that a code tells when it is heard.
  words = [Word(w, a / rate, b / rate) for w, a, b in zip(said, starts, starts[1:])]
  codes, text = np.arange(starts[-1], dtype=np.int32), gap.join(said)
  encode = assets.tokenizer.encode
  parts = interleave.by_words(text, words, codes, encode, rate, size)
  texts, spans = parts[::2], parts[1::2]
  assert sum(texts, []) == encode(text)
  assert np.concatenate(spans).tolist() == codes.tolist()
  assert all(len(chunk) >= size for chunk in texts[:-1])
  # Every span begins where a word does, and its text with that word.
  for number, span in enumerate(spans):
    before = assets.tokenizer.decode(sum(texts[:number], [])).split()
    assert len(before) == starts.tolist().index(span[0])


def test_a_tokenizer_that_joins_words_is_never_cut_within_a_token():
  def encode(text):  # 'one two' is one token
    return text.replace('one two', '12').split()

  def numbers(text):
    return [hash(part) for part in encode(text)]

  words = [Word(w, i, i + 1.0) for i, w in enumerate(['zero', 'one', 'two', 'three'])]
  parts = interleave.by_words('zero one two three', words, np.arange(4), numbers, 1.0, 1)
  assert lengths(parts) == [
    *(('text', 1), ('audio', 1), ('text', 1), ('audio', 2), ('text', 1), ('audio', 1))
  ]


@pytest.mark.parametrize(
  'words,said',
  [
    ([], 'there are no words'),
    ([('two', 0, 1), ('one', 1, 2)], "word 'one' is not in the text behind"),
    ([('one', 0, 1), ('three', 1, 2)], "word 'three' is not in the text"),
    ([('one', 1, 2), ('two', 0, 1)], 'must be in order'),
    ([('one', 1, 0.5)], 'must be in order'),
    ([('one', float('nan'), 1)], 'must be in order'),
    ([('one', 0, float('inf'))], 'must be in order'),
    ([('', 0, 1)], 'must be in order'),
    ([('one', 0, 1), ('two', 5, 6)], 'begins at 5 s, but the audio has 3.00 s'),
  ],
)
def test_words_that_do_not_fit_are_refused(words, said):
  words = [Word(*word) for word in words]
  with pytest.raises(ValueError, match=said):
    interleave.by_words('one two', words, np.arange(3), str.split, 1.0)
