"""What is said in the little world: digit strings, and questions about small sums.

Every word sounds like no other ('to', 'too' and 'for' are left out), so that a listener
can tell what was said from the sound alone.
"""

import numpy as np

from data_pipelines.little_world.world import MOST_STRINGS, Question, Said, World

# Index is value: the answers run from zero to eighteen.
# fmt: off
NUMBERS = (
  'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten',
  'eleven', 'twelve', 'thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen',
)
# fmt: on
DIGITS = NUMBERS[:10]
STRING_LENGTHS = (3, 7)  # digits in a string, at least and at most

# How the facts `a+b` and `a-b` are asked.
PHRASINGS = {
  '+': (
    'what is {a} plus {b}',
    'how much is {a} plus {b}',
    'add {a} and {b}',
    'the sum of {a} and {b}',
    '{a} plus {b} makes',
  ),
  '-': (
    'what is {a} minus {b}',
    'how much is {a} minus {b}',
    'take {b} from {a}',
    'subtract {b} from {a}',
    '{a} minus {b} makes',
  ),
}

SIGNS = {'+': 'plus', '-': 'minus'}


def _all_words() -> tuple[str, ...]:
  phrases = [phrase for group in PHRASINGS.values() for phrase in group]
  words = {word for phrase in phrases for word in phrase.split() if '{' not in word}
  return tuple(sorted(words | set(NUMBERS)))


WORDS = _all_words()  # sorted: everything that can be said or answered


def facts() -> tuple[tuple[int, str, int], ...]:
  """All 100 sums and 55 differences (none negative) of two digits, as (a, sign, b)."""
  pairs = [(a, b) for a in range(10) for b in range(10)]
  sums = [(a, '+', b) for a, b in pairs]
  differences = [(a, '-', b) for a, b in pairs if a >= b]
  return tuple(sums + differences)


def make_world(num_train_strings: int, num_test_strings: int, seed: int) -> World:
  """Draws a world.

  Strings have 3 to 7 digits, every length being as likely. What is for testing depends
  on `num_test_strings` and `seed` alone, and fewer `num_train_strings` give a prefix.

  Args:
    num_train_strings: digit strings to learn from.
    num_test_strings: digit strings to be judged on.
    seed: of the draw, at least 0.

  Returns:
    The world.

  Raises:
    ValueError: a number is negative, or more strings are wanted than are kept apart.
  """
  for name, value in (
    ('num_train_strings', num_train_strings),
    ('num_test_strings', num_test_strings),
    ('seed', seed),
  ):
    if value < 0:
      raise ValueError(f'{name} must be at least 0, got {value}')
  total = num_train_strings + num_test_strings
  if total > MOST_STRINGS:
    raise ValueError(f'{total} strings in all: at most {MOST_STRINGS} can be drawn')
  held_out_rng, strings_rng = np.random.default_rng(seed).spawn(2)
  train_questions, test_questions = _split_questions(held_out_rng)
  strings = _draw_strings(total, strings_rng)
  return World(
    kinds=('string', 'question', 'number'),
    train_strings=strings[num_test_strings:],
    test_strings=strings[:num_test_strings],
    train_questions=train_questions,
    test_questions=test_questions,
  )


def _draw_strings(count: int, rng: np.random.Generator) -> tuple[str, ...]:
  shortest, longest = STRING_LENGTHS
  strings: dict[str, None] = {}  # a set that keeps its order
  while len(strings) < count:
    digits = rng.integers(10, size=rng.integers(shortest, longest + 1))
    strings[' '.join(DIGITS[d] for d in digits)] = None
  return tuple(strings)


def _split_questions(
  rng: np.random.Generator,
) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
  train, test = [], []
  for a, sign, b in facts():
    answer = NUMBERS[a + b if sign == '+' else a - b]
    statement = f'{DIGITS[a]} {SIGNS[sign]} {DIGITS[b]} is {answer}'
    reply = (Said(statement, aloud=False), Said(answer, aloud=True))
    phrasings = PHRASINGS[sign]
    held_out = rng.integers(len(phrasings))
    for i, phrasing in enumerate(phrasings):
      text = phrasing.format(a=DIGITS[a], b=DIGITS[b])
      question = Question(text, reply, f'{a}{sign}{b}')
      (test if i == held_out else train).append(question)
  return tuple(train), tuple(test)
