import ctypes

import machines
import numpy as np
import pytest

machines.package('espeakng_loader')
machines.package('pocketsphinx')
jiwer = machines.package('jiwer')

from data_pipelines.little_world import speech, sums, town
from ttt_jax.codecs import audio_io
from ttt_jax.evaluation.recognisers import recogniser, sphinx

RATE = speech.SAMPLE_RATE


@pytest.fixture(scope='module')
def digits():
  return sphinx.PocketSphinx.of(sums.DIGITS)


def _rate(listener, texts):
  heard = [listener.hear(speech.say(text), RATE) for text in texts]
  return jiwer.wer(list(texts), heard)


def test_digit_strings_are_heard(digits):
  assert _rate(digits, sums.make_world(0, 15, seed=5).test_strings) <= 0.02


def test_questions_are_heard():
  questions = sums.make_world(0, 0, seed=5).test_questions[::8]
  listener = sphinx.PocketSphinx.of(sums.WORDS)
  assert _rate(listener, [q.text for q in questions]) <= 0.03


def test_single_numbers_are_heard():
  listener = sphinx.PocketSphinx.of(sums.NUMBERS, single=True)
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
  with pytest.raises(recogniser.RecogniserError, match='pocketsphinx'):
    sphinx.PocketSphinx.of(words)


def test_a_grammar_tells_what_can_be_heard(tmp_path):
  path = tmp_path / 'town.jsgf'
  path.write_text(town.GRAMMAR)
  listener = sphinx.PocketSphinx.make(str(path), ['passed over'])
  world = town.make_world(0, 6, seed=3)
  said = [*world.test_strings, world.test_questions[0].text, world.test_questions[0].answer]
  assert _rate(listener, said) <= 0.05
  assert 'two' not in listener.hear(speech.say('two'), RATE).split()  # no sentence of the town
  path.write_text(town.GRAMMAR.replace('harbour', 'forest'))
  assert sphinx.PocketSphinx.make(str(path), []).fingerprint != listener.fingerprint


@pytest.mark.parametrize(
  'content,said',
  [
    (b'', r'unexpected \$end'),
    (b'hello world', r'unexpected \$end'),
    (b'\xff', 'decode'),
    (b'#JSGF V1.0; grammar a; <b> = one;', 'No public rules'),
    (b'#JSGF V1.0; grammar a; public <b> = qzxw;', "'qzxw' is missing in the dictionary"),
    # With these, pocketsphinx alone would hear nothing in anything.
    (b'#JSGF V1.0; grammar a; public <b> = one <c>;', 'Undefined rule in RHS: <a.c>'),
    (b'#JSGF V1.0; grammar a; public <b> = one | <b> two;', 'Only right-recursion'),
  ],
)
def test_what_is_no_grammar_is_told_and_not_echoed(tmp_path, capfd, content, said):
  path = tmp_path / 'bad.jsgf'
  path.write_bytes(content)
  with pytest.raises(recogniser.RecogniserError, match=f'bad.jsgf: .*{said}'):
    sphinx.PocketSphinx.make(str(path), [])
  ctypes.CDLL(None).fflush(None)
  assert capfd.readouterr() == ('', '')


def test_the_words_are_those_of_the_texts():
  listener = sphinx.PocketSphinx.make('', ['One two.', '"nine"'])
  assert listener.hear(speech.say('two nine one'), RATE) == 'two nine one'
  single = sphinx.PocketSphinx.make('', ['one', 'nine'])
  assert single.hear(speech.say('nine'), RATE) == 'nine'
  with pytest.raises(recogniser.RecogniserError, match="no pronunciation of '12'"):
    sphinx.PocketSphinx.make('', ['one 12'])
  with pytest.raises(recogniser.RecogniserError, match='needs a sequence of words'):
    sphinx.PocketSphinx.make('', [])
