import collections
import re

import pytest

from data_pipelines.little_world import town

WORLD = town.make_world(3000, 200, seed=0)


def test_sentences_are_different_and_kept_apart():
  strings = WORLD.train_strings + WORLD.test_strings
  assert (len(WORLD.train_strings), len(WORLD.test_strings)) == (3000, 200)
  assert len(set(strings)) == 3200
  assert {len(s.split()) for s in strings} <= set(range(7, 12))
  assert town.make_world(100, 200, seed=0).test_strings == WORLD.test_strings
  assert town.make_world(100, 200, seed=1).test_strings != WORLD.test_strings


def test_words_are_all_that_is_said():
  said = collections.Counter(word for s in WORLD.train_strings for word in s.split())
  for question in WORLD.train_questions + WORLD.test_questions:
    said.update(question.text.split() + question.answer.split())
  assert tuple(sorted(said)) == town.WORDS
  assert len(town.WORDS) > 100 and min(said.values()) >= 4


def test_answers_tell_who_has_what_and_where_and_say_what_they_write():
  things, held_out = {}, collections.Counter()
  for question in WORLD.train_questions + WORLD.test_questions:
    pieces = question.reply
    assert [piece.aloud for piece in pieces] == [False, True, False, True]
    assert pieces[0].text == pieces[1].text and pieces[2].text == pieces[3].text
    has = re.fullmatch(r'(\w+) has a (\w+) (\w+)', pieces[0].text)
    where = re.fullmatch(r'the (\w+) is (\w+) the (\w+)', pieces[2].text)
    assert has[1] == question.fact and has[1] in question.text.split()
    assert has[3] == where[1] and has[2][0] not in 'aeiou'
    assert things.setdefault(has[1], has[3]) == has[3]
  assert len(set(things.values())) == len(things) == len(town.NAMES)
  held_out = collections.Counter(q.fact for q in WORLD.test_questions)
  assert set(held_out.values()) == {1} and len(held_out) == len(town.NAMES)
  asked = [q.text for q in WORLD.train_questions]
  assert len(asked) == 4 * len(town.NAMES)
  assert not set(asked) & {q.text for q in WORLD.test_questions}


@pytest.mark.parametrize('arguments', [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (10**6, 1, 0)])
def test_bad_arguments(arguments):
  with pytest.raises(ValueError, match='none may be negative, and at most'):
    town.make_world(*arguments)


def test_the_grammar_allows_all_that_is_said():
  rules = dict(re.findall(r'<(\w+)> = (.*);', WORLD.grammar))

  def pattern(rule):  # the same in regular expressions: a word and a blank for each word
    tokens = re.findall(r'<\w+>|\w+|[()|+\[\]]', rule)
    marks = {'[': '(?:', ']': ')?', '(': '(?:'}
    found = (
      f'(?:{pattern(rules[token[1:-1]])})'
      if token[0] == '<'
      else marks.get(token, token + ' ' if token.isalpha() else token)
      for token in tokens
    )
    return ''.join(found)

  allowed = re.compile(pattern(rules['utterance']))
  questions = WORLD.train_questions + WORLD.test_questions
  said = WORLD.train_strings + tuple(text for q in questions for text in (q.text, q.answer))
  assert all(allowed.fullmatch(text + ' ') for text in said)
  assert not allowed.fullmatch('anna the garden ')
  assert not allowed.fullmatch('')
