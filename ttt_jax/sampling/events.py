"""What is told of an answer: at its end, and while it is made."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ttt_jax import vocabulary as vocabulary_lib


class Answer(NamedTuple):
  """What the model said.

  Attributes:
    tokens: int32 [n], text and audio, ends and begins included.
    complete: false where a limit of `config.Sampling` ended it or a span of it.
  """

  tokens: np.ndarray
  complete: bool


class Event(NamedTuple):
  """What has become final of an answer; or a 'draft' of what has not.

  Attributes:
    kind: 'text' (begins of audio included), 'audio' (a block, or what is left of it), 'end'
      of a span, or 'done'; or 'draft', the block that is being revealed.
    tokens: int32 [n], ids of text, or ids of codes; in a draft ids of codes and ends, and the
      mask where nothing is revealed yet; empty in the other kinds.
    complete: false in 'done' where a limit ended the answer or a span of it.
  """

  kind: str
  tokens: np.ndarray
  complete: bool = True


_NOTHING = np.zeros(0, np.int32)


def of_tokens(tokens: np.ndarray, vocabulary: vocabulary_lib.Vocabulary) -> Iterator[Event]:
  """The events that tell of tokens, int32 [n], which have become final together."""
  audio = vocabulary.is_audio(tokens)
  for run in np.split(tokens, np.flatnonzero(audio[1:] != audio[:-1]) + 1):
    if len(run) and not vocabulary.is_audio(run[0]):
      yield Event('text', run)
    elif len(run):
      ended = vocabulary.is_end(run[-1])
      yield Event('audio', run[: len(run) - ended])
      if ended:
        yield Event('end', _NOTHING)


def done(complete: bool) -> Event:
  """The last event of an answer."""
  return Event('done', _NOTHING, complete)
