import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('espeakng_loader')
pytest.importorskip('jiwer')
pytest.importorskip('pocketsphinx')

from data_pipelines.little_world import speech, sums
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation import recogniser

RATE = speech.SAMPLE_RATE


@pytest.fixture(scope='module')
def digits():
  return recogniser.Recogniser(sums.DIGITS)


def _rate(listener, texts):
  heard = [listener.hear(speech.say(text), RATE) for text in texts]
  return recogniser.word_error_rate(texts, heard)


def test_digit_strings_are_heard(digits):
  assert _rate(digits, sums.make_world(0, 15, seed=5).test_strings) <= 0.02


def test_questions_are_heard():
  questions = sums.make_world(0, 0, seed=5).test_questions[::8]
  listener = recogniser.Recogniser(sums.WORDS)
  assert _rate(listener, [q.text for q in questions]) <= 0.03


def test_single_numbers_are_heard():
  listener = recogniser.Recogniser(sums.NUMBERS, single=True)
  assert _rate(listener, sums.NUMBERS) <= 0.06  # one of nineteen


def test_what_is_heard_does_not_depend_on_order_level_or_rate(digits):
  texts = ['four zero one two', 'nine eight three']
  waves = [speech.say(text) for text in texts]
  noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
  assert digits.hear(waves[0], RATE) == texts[0]
  digits.hear(noise, RATE)
  assert digits.hear(waves[0], RATE) == texts[0]
  assert digits.hear(waves[1] * np.float32(0.02), RATE) == texts[1]
  assert digits.hear(audio_io.resample(waves[1], RATE, 24_000), 24_000) == texts[1]


def test_silence_and_nothing(digits):
  assert digits.hear(np.zeros(0, np.float32), RATE) == ''
  assert len(digits.hear(np.zeros(RATE, np.float32), RATE).split()) <= 1
  assert isinstance(digits.hear(np.ones(1, np.float32), RATE), str)


@pytest.mark.parametrize('bad', [np.array([np.nan], np.float32), np.zeros((2, 9), np.float32)])
def test_what_is_no_waveform(digits, bad):
  with pytest.raises(audio_io.AudioError):
    digits.hear(bad, RATE)


@pytest.mark.parametrize('words', [[], 'one', ['one', 'qzxw'], ['one | two'], ['One'], ['']])
def test_words_that_cannot_be_heard(words):
  with pytest.raises(ValueError, match='recogniser'):
    recogniser.Recogniser(words)


@pytest.mark.parametrize(
  ('references', 'hypotheses', 'expected'),
  [
    (['one two three'], ['one two three'], 0),
    (['one two three'], ['one six three'], 1 / 3),
    (['one two three'], ['one three'], 1 / 3),
    (['one two'], ['one two two nine'], 1),
    (['one two', 'nine nine'], ['', 'nine nine'], 1 / 2),
    (['one'], ['nine nine nine'], 3),
  ],
)
def test_word_error_rates(references, hypotheses, expected):
  assert recogniser.word_error_rate(references, hypotheses) == pytest.approx(expected)


WORD_LISTS = st.lists(st.sampled_from('one two three'.split()), min_size=1, max_size=6)  # noqa: SIM905


@given(st.lists(st.tuples(WORD_LISTS, WORD_LISTS), min_size=1, max_size=4))
def test_word_error_rate_is_edit_distance_over_words(pairs):
  def distance(a, b):  # the textbook's recursion, row by row
    row = list(range(len(b) + 1))
    for i, word in enumerate(a):
      new = [i + 1]
      for j, other in enumerate(b):
        new.append(min(row[j + 1] + 1, new[j] + 1, row[j] + (word != other)))
      row = new
    return row[-1]

  expected = sum(distance(a, b) for a, b in pairs) / sum(len(a) for a, _ in pairs)
  references, hypotheses = zip(*((' '.join(a), ' '.join(b)) for a, b in pairs))
  assert recogniser.word_error_rate(references, hypotheses) == pytest.approx(expected)


def test_references_that_cannot_be_counted():
  with pytest.raises(ValueError, match='no references'):
    recogniser.word_error_rate([], [])
  with pytest.raises(ValueError, match='1 references but 2'):
    recogniser.word_error_rate(['one'], ['one', 'two'])
  with pytest.raises(ValueError, match='reference 1 has no words'):
    recogniser.word_error_rate(['one', ' '], ['one', 'two'])


def test_missing_wheels_say_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'pocketsphinx', None)
  monkeypatch.setitem(sys.modules, 'jiwer', None)
  with pytest.raises(ImportError, match=r"pip install 'ttt_jax\[speech\]'"):
    recogniser.Recogniser(['one'])
  with pytest.raises(ImportError, match=r"pip install 'ttt_jax\[speech\]'"):
    recogniser.word_error_rate(['one'], ['one'])
