"""What a little world is made of: texts to speak and to transcribe, and questions to answer."""

import dataclasses
from typing import NamedTuple

MOST_STRINGS = 1_000_000  # so that drawing different ones never takes long


class Said(NamedTuple):
  """A piece of an answer: text that is written, or a text that is spoken."""

  text: str
  aloud: bool


@dataclasses.dataclass(frozen=True)
class Question:
  """A question about a fact.

  Attributes:
    text: the question in words.
    reply: what answers it, piece by piece.
    fact: names the fact, the same for all phrasings.
  """

  text: str
  reply: tuple[Said, ...]
  fact: str

  @property
  def answer(self) -> str:
    """All that is spoken of the reply."""
    return ' '.join(piece.text for piece in self.reply if piece.aloud)


@dataclasses.dataclass(frozen=True)
class World:
  """Everything there is to say, split in two.

  Attributes:
    kinds: what a listener takes for one kind of texts: that of the strings, of the questions,
      of the answers.
    train_strings: texts to learn from, all different.
    test_strings: texts to be judged on, none of them among the former.
    train_questions: every fact in all but one of its phrasings.
    test_questions: every fact once, in the phrasing left out of training.
    grammar: of all that can be said, in JSGF, where a listener needs more than the words.
  """

  kinds: tuple[str, str, str]
  train_strings: tuple[str, ...]
  test_strings: tuple[str, ...]
  train_questions: tuple[Question, ...]
  test_questions: tuple[Question, ...]
  grammar: str = ''
