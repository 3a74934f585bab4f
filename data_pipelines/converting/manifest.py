"""Records of raw audio: what is said in turns, as text and as stretches of sound files.

    {"turns": [{"role": "user", "parts": [{"audio": "a.flac", "start": 1.5, "end": 3.0}]},
               {"role": "assistant", "parts": [{"text": "..."}, {"audio": "b.wav"}],
                "interleave": true}],
     "task": "chat", "about": {...}}

`{"parts": [...]}` in the place of the turns is a text of which everything is learnt.
docs/data.md says what each key means.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.converting import interleave
from data_pipelines.reading import sources
from ttt_jax import chat, errors

BY_WORDS = 'words'
_LONGEST = 1e9  # seconds; no file of sounds has so many


class Audio(NamedTuple):
  """A part that is heard.

  Attributes:
    file: as the record names it.
    start, end: of the stretch, in seconds; an `end` of None is that of the file.
    words: those of the turn's text, with their times within the stretch; () is not known.
  """

  file: str
  start: float
  end: float | None
  words: tuple[interleave.Word, ...]


class Said(NamedTuple):
  """A turn, or all of a text without turns.

  Attributes:
    role: '' is a text without turns.
    parts: text and audio.
    pattern: tokens of text and of audio in turn; `BY_WORDS`; or None, as the parts stand.
  """

  role: str
  parts: tuple[str | Audio, ...]
  pattern: tuple[int, int] | str | None


class Entry(NamedTuple):
  """A record of a manifest.

  Attributes:
    said: what is said, in order.
    task: one of `sources.TASKS`, or ''.
    about: what its record carries.
  """

  said: tuple[Said, ...]
  task: str
  about: dict[str, Any]

  @property
  def audio(self) -> list[Audio]:
    """All parts that are heard, in order."""
    return [part for said in self.said for part in said.parts if isinstance(part, Audio)]

  @property
  def texts(self) -> list[tuple[str, str]]:
    """Role and text of each turn."""
    return [
      (said.role, ''.join(part for part in said.parts if isinstance(part, str)))
      for said in self.said
    ]


def parse(content: dict[str, Any]) -> Entry:
  """The record that an object describes.

  Raises:
    ValueError: it has unknown keys, a value of another kind, or turns out of order.
  """
  form = 'turns' if 'turns' in content else 'parts'
  known = ('turns',) if form == 'turns' else ('parts', 'interleave')
  _check_keys(content, (*known, 'task', 'about'))
  about = _about(content)
  if form == 'turns':
    said = tuple(_turn(turn) for turn in _list(content, 'turns'))
    chat.check_order([each.role for each in said])
  else:
    said = (_said('', content),)
  return Entry(said, sources.check_task(content.get('task', '')), about)


def document(
  entry: Entry, codes: Sequence[np.ndarray], template: chat.Template, frame_rate: float
) -> chat.Document:
  """An entry as tokens.

  Args:
    entry: the record.
    codes: int [T] each, of `entry.audio`.
    template: of the vocabulary.
    frame_rate: codes a second.

  Raises:
    ValueError: the text and audio of a turn cannot be interleaved as the entry wants it.
  """
  rest, turns = iter(codes), []
  for said in entry.said:
    parts = [part if isinstance(part, str) else next(rest) for part in said.parts]
    if said.pattern is not None:
      parts = _interleaved(said, parts, template, frame_rate)
    turns.append(chat.Turn(said.role, parts))
  if entry.said[0].role:
    return template.document(turns)
  ids = np.array(template.said(turns[0].parts, response=True), np.int32)
  return chat.Document(ids, np.ones(len(ids), bool), template.vocabulary.spans(ids))


def _interleaved(
  said: Said, parts: list[str | np.ndarray], template: chat.Template, frame_rate: float
) -> list[chat.Part]:
  (text, codes), encode = parts, template.tokenizer.encode
  if said.pattern == BY_WORDS:
    return interleave.by_words(text, said.parts[1].words, codes, encode, frame_rate)
  return interleave.by_count(encode(text), codes, said.pattern)


def _about(content: dict[str, Any]) -> dict[str, Any]:
  about = content.get('about', {})
  if not isinstance(about, dict):
    raise ValueError(f'"about" must be an object, not {about!r:.80}')
  try:
    json.dumps(about, allow_nan=False)
  except (TypeError, ValueError) as error:  # tables have times, bytes and NaNs
    raise ValueError(f'"about" has a value that JSON has not: {error}') from error
  return about


def _turn(turn: Any) -> Said:
  _check_keys(turn, ('role', 'parts', 'interleave'))
  role = turn.get('role')
  if role not in chat.ROLES:
    raise ValueError(f'"role" must be one of {", ".join(chat.ROLES)}, not {role!r:.80}')
  said = _said(role, turn)
  if said.pattern is not None and role != 'assistant':
    raise ValueError(f'"interleave" is for assistants and texts without turns, not a {role}')
  return said


def _said(role: str, content: dict[str, Any]) -> Said:
  parts = tuple(_part(part) for part in _list(content, 'parts'))
  pattern = _pattern(content.get('interleave', False))
  if pattern is not None and [isinstance(part, str) for part in parts] != [True, False]:
    raise ValueError('"interleave" needs two parts: a text, and the audio of it')
  words = [part.words for part in parts if isinstance(part, Audio)]
  if pattern == BY_WORDS and not words[0]:
    raise ValueError('"interleave": "words" needs the "words" of the audio')
  if pattern != BY_WORDS and any(words):
    raise ValueError('"words" are used by "interleave": "words" alone')
  return Said(role, parts, pattern)


def _part(part: Any) -> str | Audio:
  _check_keys(part, ('text', 'audio', 'start', 'end', 'words'))
  if 'audio' not in part:
    text = part.get('text')
    if not isinstance(text, str) or not text.strip() or len(part) > 1:
      raise ValueError(f'a part is {{"text": "..."}} or {{"audio": "..."}}, not {part!r:.80}')
    return text
  file, start, end = part['audio'], part.get('start', 0), part.get('end')
  if 'text' in part or not isinstance(file, str) or not file:
    raise ValueError(f'a part is {{"text": "..."}} or {{"audio": "..."}}, not {part!r:.80}')
  start, end = _seconds(start, 'start'), None if end is None else _seconds(end, 'end')
  if end is not None and end <= start:
    raise ValueError(f'"end" must be behind "start": {start} to {end}')
  words = _list(part, 'words') if 'words' in part else []
  return Audio(file, start, end, tuple(map(_word, words)))


def _word(word: Any) -> interleave.Word:
  _check_keys(word, interleave.Word._fields)
  if not isinstance(word.get('word'), str):
    raise ValueError(f'a word is {{"word", "start", "end"}}, not {word!r:.80}')
  start, end = (_seconds(word.get(key), key) for key in ('start', 'end'))
  return interleave.Word(word['word'], start, end)


def _pattern(value: Any) -> tuple[int, int] | str | None:
  if isinstance(value, bool):
    return interleave.PATTERN if value else None
  if value == BY_WORDS:
    return BY_WORDS
  pair = isinstance(value, list) and len(value) == 2
  if not pair or not all(type(number) is int and number > 0 for number in value):
    raise ValueError(
      '"interleave" must be true, a list of two numbers (tokens of text, of audio) or '
      f'"words", not {value!r:.80}'
    )
  return tuple(value)


def _seconds(value: Any, name: str) -> float:
  if type(value) not in (int, float) or not 0 <= value < _LONGEST:
    raise ValueError(f'"{name}" must be a number of seconds, not {value!r:.80}')
  return float(value)


def _list(content: dict[str, Any], key: str) -> list[Any]:
  value = content.get(key)
  if not isinstance(value, list) or not value:
    raise ValueError(f'"{key}" must be a list that is not empty, not {value!r:.80}')
  return value


def _check_keys(value: Any, known: Sequence[str]) -> None:
  if not isinstance(value, dict):
    raise ValueError(f'an object with {", ".join(known)} is needed, not {value!r:.80}')
  for key in value:
    if key not in known:
      raise ValueError(f'no such key: {key!r:.80}{errors.nearest(key, list(known))}')
