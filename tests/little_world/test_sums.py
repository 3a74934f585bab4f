import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.little_world import sums

# Written out a second time, on purpose.
ORDER = (
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen'
  ' fifteen sixteen seventeen eighteen'
)
VALUE = {word: value for value, word in enumerate(ORDER.split())}
READINGS = [
  (r'(?:what is|how much is) (\w+) plus (\w+)', lambda a, b: a + b),
  (r'add (\w+) and (\w+)', lambda a, b: a + b),
  (r'the sum of (\w+) and (\w+)', lambda a, b: a + b),
  (r'(\w+) plus (\w+) makes', lambda a, b: a + b),
  (r'(?:what is|how much is) (\w+) minus (\w+)', lambda a, b: a - b),
  (r'(?:take|subtract) (\w+) from (\w+)', lambda a, b: b - a),
  (r'(\w+) minus (\w+) makes', lambda a, b: a - b),
]


def _work_out(text):
  for pattern, value in READINGS:
    if match := re.fullmatch(pattern, text):
      return value(*(VALUE[word] for word in match.groups()))
  raise AssertionError(text)


def test_every_answer_is_right():
  world = sums.make_world(0, 0, seed=0)
  for question in world.train_questions + world.test_questions:
    assert VALUE[question.answer] == _work_out(question.text) == eval(question.fact)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_each_fact_has_one_phrasing_held_out(seed):
  world = sums.make_world(0, 0, seed)
  test = {q.fact: q.text for q in world.test_questions}
  assert len(test) == len(world.test_questions) == 155
  assert sum('+' in fact for fact in test) == 100
  train = [q.text for q in world.train_questions]
  assert len(train) == len(set(train)) == 155 * 4
  assert not set(train) & set(test.values())
  assert {q.fact for q in world.train_questions} == set(test)


@settings(max_examples=30)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 2**32))
def test_strings_are_as_many_as_asked_for_and_kept_apart(num_train, num_test, seed):
  world = sums.make_world(num_train, num_test, seed)
  assert (len(world.train_strings), len(world.test_strings)) == (num_train, num_test)
  strings = world.train_strings + world.test_strings
  assert len(set(strings)) == len(strings)
  for string in strings:
    words = string.split(' ')
    assert 3 <= len(words) <= 7 and all(VALUE[word] < 10 for word in words)


@settings(max_examples=15)
@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 50), st.integers(0, 99))
def test_more_training_adds_and_changes_nothing(fewer, extra, num_test, seed):
  small = sums.make_world(fewer, num_test, seed)
  large = sums.make_world(fewer + extra, num_test, seed)
  assert large.train_strings[:fewer] == small.train_strings
  assert large.test_strings == small.test_strings
  assert large.test_questions == small.test_questions


def test_seeds_matter_and_draws_are_even():
  world = sums.make_world(5000, 0, seed=0)
  assert world != sums.make_world(5000, 0, seed=1)
  assert world == sums.make_world(5000, 0, seed=0)
  lengths = [len(s.split()) for s in world.train_strings]
  for length in range(4, 8):
    assert 850 < lengths.count(length) < 1250
  first = [s.split()[0] for s in world.train_strings]
  assert all(400 < first.count(digit) < 600 for digit in sums.DIGITS)
  held_out = [q.text.split()[0] for q in world.test_questions]
  assert len(set(held_out)) > 8  # all kinds of phrasings, not one


def test_words_are_all_that_is_said():
  world = sums.make_world(500, 0, seed=0)
  said = set(sums.NUMBERS)
  for question in world.train_questions + world.test_questions:
    said |= set(question.text.split()) | {question.answer}
  for string in world.train_strings:
    said |= set(string.split())
  assert tuple(sorted(said)) == sums.WORDS
  assert list(VALUE) == list(sums.NUMBERS)
  assert not said & {'to', 'too', 'for', 'won', 'ate'}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((-1, 0, 0), 'num_train_strings'),
    ((0, -2, 0), 'num_test_strings'),
    ((0, 0, -3), 'seed'),
    ((600_000, 600_000, 0), '1200000 strings'),
  ],
)
def test_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    sums.make_world(*arguments)
