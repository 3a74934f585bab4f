"""What is said in the town, a harder world: a hundred words, and who has what, and where.

`anna sells three golden lanterns near the harbour`. Everybody has one thing of some colour,
which is in one place. Who is asked about somebody's thing writes and says two sentences, so
that an answer has two spans of audio, of one to two seconds each.
"""

import numpy as np

from data_pipelines.little_world.world import MOST_STRINGS, Question, Said, World

# fmt: off
NAMES = (
  'anna', 'martin', 'robert', 'susan', 'peter', 'olivia', 'victor', 'emma', 'daniel', 'julia',
  'hugo', 'alice',
)
VERBS = ('has', 'wants', 'paints', 'finds', 'brings', 'sells', 'carries', 'repairs')
NUMBERS = ('two', 'three', 'five', 'seven', 'nine', 'twenty')
COLOURS = (
  'red', 'green', 'yellow', 'purple', 'black', 'silver', 'wooden', 'heavy', 'little', 'broken',
)
THINGS = (
  'boat', 'table', 'basket', 'window', 'guitar', 'jacket', 'bottle', 'camera', 'ladder',
  'mirror', 'bicycle', 'violin',
)
PLACES = (
  'garden', 'kitchen', 'village', 'harbour', 'forest', 'castle', 'station', 'market',
  'library', 'museum', 'island', 'hospital',
)
PREPOSITIONS = ('in', 'behind', 'near', 'under', 'outside')
TIMES = (
  'today', 'tomorrow', 'tonight', 'on monday', 'on friday', 'in the morning', 'at midnight',
  'at noon',
)
# fmt: on

PHRASINGS = (
  'what does {name} have',
  'what is it that {name} has',
  'tell me about {name}',
  'where is the thing of {name}',
  'what belongs to {name}',
)


def _either(options) -> str:
  return f'({" | ".join(options)})'


# What a listener may take for speech of the town: any of its statements and questions, one or
# several; which of them are true, or were said to learn from, it does not know.
GRAMMAR = f"""#JSGF V1.0;
grammar town;
<thing> = (the | a) {_either(COLOURS)} {_either(THINGS)};
<things> = {_either(NUMBERS)} {_either(COLOURS)} {_either(thing + 's' for thing in THINGS)};
<place> = {_either(PREPOSITIONS)} the {_either(PLACES)};
<name> = {_either(NAMES)};
<event> = <name> {_either(VERBS)} (<thing> | <things>) [<place>] [{_either(TIMES)}];
<where> = the {_either(THINGS)} is <place>;
<question> = {_either(PHRASINGS).replace('{name}', '<name>')};
public <utterance> = (<event> | <where> | <question>)+;
"""

_MANY, _TIMED = 0.3, 0.4  # parts of the sentences that have a number, or a time


def _all_words() -> tuple[str, ...]:
  groups = (NAMES, VERBS, NUMBERS, COLOURS, THINGS, PLACES, PREPOSITIONS)
  words = {word for group in groups for word in group} | {'a', 'the', 'it', 'is'}
  words |= {thing + 's' for thing in THINGS}
  words |= {word for time in TIMES for word in time.split()}
  return tuple(sorted(words | {w for p in PHRASINGS for w in p.split() if '{' not in w}))


WORDS = _all_words()  # sorted: everything that can be said or answered


def sentence(rng: np.random.Generator) -> str:
  """Somebody, what they do, with what, where and, now and then, when: 7 to 11 words."""
  if rng.random() < _MANY:
    what = f'{rng.choice(NUMBERS)} {rng.choice(COLOURS)} {rng.choice(THINGS)}s'
  else:
    what = f'the {rng.choice(COLOURS)} {rng.choice(THINGS)}'
  where = f'{rng.choice(PREPOSITIONS)} the {rng.choice(PLACES)}'
  when = f' {rng.choice(TIMES)}' if rng.random() < _TIMED else ''
  return f'{rng.choice(NAMES)} {rng.choice(VERBS)} {what} {where}{when}'


def make_world(num_train_strings: int, num_test_strings: int, seed: int) -> World:
  """Draws a town; what is for testing depends on `num_test_strings` and `seed` alone.

  Raises:
    ValueError: a number is negative, or more sentences are wanted than are kept apart.
  """
  total = num_train_strings + num_test_strings
  if min(num_train_strings, num_test_strings, seed) < 0 or total > MOST_STRINGS:
    raise ValueError(
      f'{num_train_strings} sentences to learn, {num_test_strings} for testing, seed {seed}: '
      f'none may be negative, and at most {MOST_STRINGS} sentences can be drawn'
    )
  facts_rng, strings_rng = np.random.default_rng(seed).spawn(2)
  train_questions, test_questions = _questions(facts_rng)
  strings: dict[str, None] = {}  # a set that keeps its order
  while len(strings) < total:
    strings[sentence(strings_rng)] = None
  drawn = tuple(strings)
  return World(
    kinds=('sentence', 'question', 'answer'),
    train_strings=drawn[num_test_strings:],
    test_strings=drawn[:num_test_strings],
    train_questions=train_questions,
    test_questions=test_questions,
    grammar=GRAMMAR,
  )


def _questions(rng: np.random.Generator) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
  train, test = [], []
  things = rng.permutation(THINGS)[: len(NAMES)]
  places = rng.permutation(PLACES)
  for name, thing, place in zip(NAMES, things, places):
    # 'a' stands before no vowel.
    colour = rng.choice([colour for colour in COLOURS if colour[0] not in 'aeiou'])
    has = f'{name} has a {colour} {thing}'
    where = f'the {thing} is {rng.choice(PREPOSITIONS)} the {place}'
    reply = tuple(Said(text, aloud) for text in (has, where) for aloud in (False, True))
    held_out = rng.integers(len(PHRASINGS))
    for index, phrasing in enumerate(PHRASINGS):
      question = Question(phrasing.format(name=name), reply, name)
      (test if index == held_out else train).append(question)
  return tuple(train), tuple(test)
