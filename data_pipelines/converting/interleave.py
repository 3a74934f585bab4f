"""Text and its audio in turns, as answers and interleaved texts have them.

The pattern of the authors: 13 tokens of text, 26 of audio, and so on. Where the text ends, the
last span of audio holds all that is left. What is made here are parts of a turn
(`chat.Part`): ids of text in lists, codes in arrays.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ttt_jax import chat

PATTERN = (13, 26)  # tokens of text, tokens of audio


class Word(NamedTuple):
  """A word of the text, and when it is heard, in seconds from the beginning of the audio."""

  word: str
  start: float
  end: float


def by_count(
  text: list[int], codes: np.ndarray, pattern: tuple[int, int] = PATTERN
) -> list[chat.Part]:
  """Text and audio in turns of fixed lengths.

  All chunks of text but the last one have `pattern[0]` tokens, all spans of audio but the
  last one `pattern[1]`, and the last span is behind all of the text: it holds what is left
  of the audio when the text ends, or, of audio that is short for its text, what is left of it
  when no whole span and one token more are. It is never empty.

  Args:
    text: ids.
    codes: int [T].
    pattern: tokens of text, and of audio, each at least 1.
  """
  of_text, of_audio = pattern
  if of_text < 1 or of_audio < 1:
    raise ValueError(f'a pattern is two numbers from 1, not {pattern}')
  rounds = (len(text) - 1) // of_text, (len(codes) - 1) // of_audio
  cuts = [(i * of_text, i * of_audio) for i in range(1, max(0, min(rounds)) + 1)]
  return _cut(text, codes, cuts)


def by_words(
  text: str,
  words: Sequence[Word],
  codes: np.ndarray,
  encode: Callable[[str], list[int]],
  frame_rate: float,
  size: int = PATTERN[0],
) -> list[chat.Part]:
  """Text in chunks of whole words, each followed by the audio of these words.

  Audio is cut in the middle between two words. A chunk ends where it has `size` tokens and
  where the tokenizer, too, has a boundary: no token is ever other than in the whole text.

  Args:
    text: in which the words stand, in order; what is between them is no matter.
    words: of the text, in order.
    codes: int [T].
    encode: text to ids.
    frame_rate: codes a second.
    size: least number of tokens in a chunk, but for the last one.

  Raises:
    ValueError: a word is not in the text, or times are not in order or beyond the audio.
  """
  _check_times(words, len(codes) / frame_rate)
  ids, cuts, done, at = encode(text), [], (0, 0), 0
  for before, word in zip([None, *words], words):
    start = text.find(word.word, at)
    if start < 0:
      raise ValueError(f'the word {word.word!r:.80} is not in the text behind those before it')
    at = start + len(word.word)
    if before is None:
      continue
    frame = round((before.end + word.start) / 2 * frame_rate)
    head = encode(text[:start].rstrip())
    long = len(head) - done[0] >= size and done[1] < frame < len(codes)
    if long and len(head) < len(ids) and ids[: len(head)] == head:
      done = len(head), frame
      cuts.append(done)
  return _cut(ids, codes, cuts)


def _cut(text: list[int], codes: np.ndarray, cuts: list[tuple[int, int]]) -> list[chat.Part]:
  """Text and audio, cut at these places of both; what is empty is left out."""
  parts = []
  for a, b in zip([(0, 0), *cuts], [*cuts, (len(text), len(codes))]):
    parts += [text[a[0] : b[0]], codes[a[1] : b[1]]]
  return [part for part in parts if len(part)]


def _check_times(words: Sequence[Word], seconds: float) -> None:
  if not words:
    raise ValueError('there are no words to interleave by')
  last = 0.0
  for word in words:
    if not (word.word and last <= word.start <= word.end < math.inf):
      raise ValueError(f'the words must be in order, and {word!r:.120} is not')
    last = word.start
  if last > seconds:
    raise ValueError(f'a word begins at {last} s, but the audio has {seconds:.2f} s')
