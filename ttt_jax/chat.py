r"""Conversations as token ids: the chat template.

`<|im_start|>role\n ... <|im_end|>\n`, as Qwen and the authors of TtT write it. Audio stands
between its begin and end tokens: `begin_audio ... end_prompt` in what the user gave,
`begin_audio ... end_inner` in an answer, and `begin_last ... end_last` for an answer's last
span.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib

ROLES = ('system', 'user', 'assistant')


# What is said: text, or its ids where these are to be as they are, or codes of the codec.
Part = str | list[int] | np.ndarray


class Turn(NamedTuple):
  """One turn.

  Attributes:
    role: one of `ROLES`.
    parts: text, ids of text, and codes (int [T]), in any order.
  """

  role: str
  parts: Sequence[Part]


def check_order(roles: Sequence[str]) -> None:
  """Raises ValueError if turns are out of order.

  The order is a system's turn or none, and then users and assistants in turn, an assistant
  last.
  """
  spoken = list(roles[1:] if roles and roles[0] == 'system' else roles)
  if not spoken or spoken != ['user', 'assistant'] * (len(spoken) // 2):
    raise ValueError(
      f'its turns are out of order ({", ".join(roles[:12])}): a system may speak first, then '
      'users and assistants speak in turn, an assistant last'
    )


class Document(NamedTuple):
  """One training example.

  Attributes:
    tokens: int32 [n].
    targets: bool [n], tokens that the model must learn to produce.
    spans: int32 [spans, 2], start and end (exclusive) of each audio span, its end token
      included.
  """

  tokens: np.ndarray
  targets: np.ndarray
  spans: np.ndarray

  @property
  def responses(self) -> np.ndarray:
    """bool [spans]: spans that the model must produce (the others are prompts)."""
    return self.targets[self.spans[:, 0]]


class Template:
  """Turns conversations into documents and prompts."""

  def __init__(self, tokenizer: tokenizer_lib.Tokenizer, vocabulary: vocabulary_lib.Vocabulary):
    """Binds the template to the ids of one vocabulary.

    Raises:
      VocabularyError: the vocabulary was made for another tokenizer.
    """
    if tokenizer.fingerprint != vocabulary.tokenizer:
      raise vocabulary_lib.VocabularyError(
        f'the vocabulary extends tokenizer {vocabulary.tokenizer}, '
        f'but was given tokenizer {tokenizer.fingerprint}'
      )
    self.tokenizer = tokenizer
    self.vocabulary = vocabulary

  def document(self, turns: Sequence[Turn]) -> Document:
    """A whole conversation; the assistant's turns are the targets."""
    tokens, targets = [], []
    for turn in turns:
      head, body = self.head(turn.role), self.body(turn)
      tokens += head + body
      targets += [False] * len(head) + [turn.role == 'assistant'] * len(body)
    ids = np.array(tokens, np.int32)
    return Document(ids, np.array(targets, bool), self.vocabulary.spans(ids))

  def prompt(self, turns: Sequence[Turn]) -> np.ndarray:
    """The conversation so far, int32 [n], up to where the assistant is to speak."""
    tokens = [i for turn in turns for i in self.head(turn.role) + self.body(turn)]
    return np.array(tokens + self.head('assistant'), np.int32)

  def parts(self, tokens: np.ndarray) -> list[str | np.ndarray]:
    """What an answer (int [n]) says: texts and codes (int32 [T]) in turn; no specials.

    Anything from the end of the turn on is left out.
    """
    vocabulary, tokens = self.vocabulary, self._of_turn(tokens)
    cuts = [0, *vocabulary.spans(tokens).flatten().tolist(), len(tokens)]
    out = []
    for index, (start, end) in enumerate(zip(cuts, cuts[1:])):
      if index % 2:
        out.append(vocabulary.to_codes(tokens[start:end]))
      elif text := self.tokenizer.decode(tokens[start:end].tolist()):
        out.append(text)
    return out

  def text(self, tokens: np.ndarray) -> str:
    """All that an answer (int [n]) writes, as if no audio stood between.

    Words that go on behind audio are whole, and pieces of text that stand apart, too.
    """
    tokens = self._of_turn(tokens)
    return self.tokenizer.decode(tokens[~self.vocabulary.is_audio(tokens)].tolist())

  def _of_turn(self, tokens: np.ndarray) -> np.ndarray:
    tokens = np.asarray(tokens, np.int32)
    ended = np.flatnonzero(tokens == self.vocabulary.turn_end)
    return tokens[: ended[0]] if len(ended) else tokens

  def head(self, role: str) -> list[int]:
    """How a turn begins.

    Raises:
      ValueError: there is no such role.
    """
    if role not in ROLES:
      raise ValueError(f'unknown role {role!r}: use one of {", ".join(ROLES)}')
    return [self.vocabulary.turn_start, *self.tokenizer.encode(role + '\n')]

  def body(self, turn: Turn) -> list[int]:
    """What follows the head of a turn."""
    return self.said(turn.parts, turn.role == 'assistant') + self.tail

  def said(self, parts: Sequence[Part], response: bool) -> list[int]:
    """Ids of text and audio.

    Args:
      parts: what is said.
      response: whether the model is to say it, so that the last span is of free length; what
        a user gave has spans of one kind.
    """
    vocabulary, tokens = self.vocabulary, []
    last = max((i for i, part in enumerate(parts) if isinstance(part, np.ndarray)), default=-1)
    for i, part in enumerate(parts):
      if isinstance(part, str):
        tokens += self.tokenizer.encode(part)
      elif isinstance(part, list):
        tokens += part
      else:
        begin, end = vocabulary.begin_audio, vocabulary.end_prompt
        if response and i == last:
          begin, end = vocabulary.begin_last, vocabulary.end_last
        elif response:
          end = vocabulary.end_inner
        tokens += [begin, *vocabulary.from_codes(part).tolist(), end]
    return tokens

  @property
  def tail(self) -> list[int]:
    """How a turn ends."""
    return [self.vocabulary.turn_end, *self.tokenizer.encode('\n')]
