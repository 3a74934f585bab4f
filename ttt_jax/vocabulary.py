"""The ids that the model reads and writes, and the class of each.

Every id is of one class. Ids below `audio_start` are *text class*: the pieces of the text
tokenizer, the marks of turns, and the begin-of-audio tokens (written left to right, like
text). From `audio_start` on they are *audio class*: the codebook, the end-of-audio tokens
(predicted inside the span, which is how a span of unknown length ends) and the mask token.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re

import numpy as np

from ttt_jax import errors, json_file

# The names of the special tokens, as the authors of the method write them.
TURN_START = '<|im_start|>'
TURN_END = '<|im_end|>'
BEGIN_AUDIO = '<|begin_of_audio|>'
BEGIN_LAST = '<|begin_of_quad|>'
END_PROMPT = '<|end_of_audio|>'
END_INNER = '<|end_of_audio_new|>'
END_LAST = '<|end_of_audio_span_last|>'
MASK = '<|mask_token|>'

# Text-class specials, which a text tokenizer must hold for `Vocabulary.extend`.
TEXT_SPECIALS = (TURN_START, TURN_END, BEGIN_AUDIO, BEGIN_LAST)

# What `Vocabulary.extend` puts behind the codebook, in this order.
AUDIO_SPECIALS = (END_PROMPT, END_INNER, END_LAST, MASK)

# Which field of `Vocabulary` holds the id of which special token.
_FIELDS = {
  'turn_start': TURN_START,
  'turn_end': TURN_END,
  'begin_audio': BEGIN_AUDIO,
  'begin_last': BEGIN_LAST,
  'end_prompt': END_PROMPT,
  'end_inner': END_INNER,
  'end_last': END_LAST,
  'mask': MASK,
}

_CODE = re.compile(r'<\|audio_(\d+)\|>')


def code_name(code: int) -> str:
  """The name of a code of the codec, as the authors write it."""
  return f'<|audio_{code}|>'


def is_mark(name: str) -> bool:
  """Whether a token of this name carries structure or audio, and is no text."""
  return name in (*TEXT_SPECIALS, *AUDIO_SPECIALS) or bool(_CODE.fullmatch(name))


FILE = 'vocabulary.json'


class VocabularyError(errors.UserError):
  """A token or a vocabulary does not fit."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Id ranges and special ids.

  Attributes:
    size: number of ids; the model may pad its embedding beyond it.
    audio_start: the first audio-class id.
    codebook_start: the id of the codec's code 0.
    codebook_size: number of codes.
    turn_start, turn_end: marks of a turn of a conversation.
    begin_audio: begins a prompt span, or an inner span of a response.
    begin_last: begins the last span of a response, whose length is free.
    end_prompt, end_inner, end_last: end a prompt span, an inner and the last span of a
      response.
    mask: what a masked audio token is replaced by.
    tokenizer: fingerprint of the text tokenizer that these ids extend.
  """

  size: int
  audio_start: int
  codebook_start: int
  codebook_size: int
  turn_start: int
  turn_end: int
  begin_audio: int
  begin_last: int
  end_prompt: int
  end_inner: int
  end_last: int
  mask: int
  tokenizer: str

  def __post_init__(self):
    begins, ends = (self.begin_audio, self.begin_last), (self.end_inner, self.end_last)
    if not 0 < self.audio_start <= self.codebook_start:
      raise VocabularyError('the codebook must lie in the audio class (audio_start and on)')
    if max(*begins, self.turn_start, self.turn_end) >= self.audio_start:
      raise VocabularyError('begin-of-audio tokens and marks of turns must be text class')
    if min(*ends, self.mask) < self.audio_start:
      raise VocabularyError('the ends of response spans and the mask must be audio class')
    codebook = range(self.codebook_start, self.codebook_start + self.codebook_size)
    if any(i in codebook for i in (*ends, self.end_prompt, self.mask)):
      raise VocabularyError('a special token lies inside the codebook')
    if max(codebook.stop, *(i + 1 for i in (*ends, self.end_prompt, self.mask))) > self.size:
      raise VocabularyError(f'ids go beyond the size of the vocabulary, {self.size}')

  @classmethod
  def extend(cls, tokenizer, codebook_size: int) -> 'Vocabulary':
    """The vocabulary of `tokenizer` followed by an audio class.

    Args:
      tokenizer: a text tokenizer that holds `TEXT_SPECIALS`.
      codebook_size: number of codes of the codec.

    Raises:
      VocabularyError: the tokenizer lacks a special token.
    """
    ids = {name: tokenizer.special(name) for name in TEXT_SPECIALS}
    start = tokenizer.size
    after = start + codebook_size
    ids |= {name: after + number for number, name in enumerate(AUDIO_SPECIALS)}
    return cls(
      size=after + len(AUDIO_SPECIALS),
      audio_start=start,
      codebook_start=start,
      codebook_size=codebook_size,
      tokenizer=tokenizer.fingerprint,
      **{field: ids[name] for field, name in _FIELDS.items()},
    )

  @classmethod
  def find(cls, tokenizer, audio_start: int | None = None) -> 'Vocabulary':
    """The vocabulary that a tokenizer holds whole, audio tokens included, by their names.

    Args:
      tokenizer: holds all special tokens, and `<|audio_0|>` and so on.
      audio_start: the first audio-class id, where it is known; by default the first id of a
        code, of a response span's end, or of the mask.

    Raises:
      VocabularyError: a token is missing, or ids lie otherwise than a model needs them.
    """
    needed = (*TEXT_SPECIALS, *AUDIO_SPECIALS, code_name(0))
    missing = [name for name in needed if not tokenizer.has(name)]
    if missing:
      raise VocabularyError(f'the tokenizer has no token {", ".join(missing)}')
    ids = {name: tokenizer.special(name) for name in needed}
    first, codes = ids[code_name(0)], 1
    while tokenizer.has(code_name(codes)):
      found = tokenizer.special(code_name(codes))
      if found != first + codes:
        raise VocabularyError(
          f'{code_name(codes)} has id {found}, not {first + codes}, as codes must have'
        )
      codes += 1
    audio_class = (first, ids[END_INNER], ids[END_LAST], ids[MASK])
    return cls(
      size=tokenizer.size,
      audio_start=min(audio_class) if audio_start is None else audio_start,
      codebook_start=first,
      codebook_size=codes,
      tokenizer=tokenizer.fingerprint,
      **{field: ids[name] for field, name in _FIELDS.items()},
    )

  @property
  def names(self) -> dict[str, int]:
    """Ids of the special tokens by name, the codes left out."""
    return {name: getattr(self, field) for field, name in _FIELDS.items()}

  @functools.cached_property
  def audio_names(self) -> dict[str, int]:
    """Ids by name of what stands for audio in a text: begins, codes and ends."""
    marks = (BEGIN_AUDIO, BEGIN_LAST, END_PROMPT, END_INNER, END_LAST)
    codes = range(self.codebook_size)
    return {name: self.names[name] for name in marks} | {
      code_name(code): self.codebook_start + code for code in codes
    }

  @property
  def begins(self) -> tuple[int, int]:
    """Every begin-of-audio token."""
    return (self.begin_audio, self.begin_last)

  @property
  def ends(self) -> tuple[int, int, int]:
    """Every end-of-audio token."""
    return (self.end_prompt, self.end_inner, self.end_last)

  @property
  def fingerprint(self) -> str:
    """Names this vocabulary: equal if and only if all ids mean the same."""
    return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

  def is_audio(self, ids: np.ndarray) -> np.ndarray:
    """Whether each id is audio class."""
    return np.asarray(ids) >= self.audio_start

  def is_end(self, ids: np.ndarray) -> np.ndarray:
    """Whether each id is an end-of-audio token."""
    return np.isin(ids, self.ends)

  def from_codes(self, codes: np.ndarray) -> np.ndarray:
    """Ids of the codec's codes.

    Raises:
      VocabularyError: a code lies outside the codebook.
    """
    codes = np.asarray(codes, np.int32)
    bad = (codes < 0) | (codes >= self.codebook_size)
    if bad.any():
      raise VocabularyError(
        f'code {codes[bad][0]} is outside the codebook of {self.codebook_size} codes: '
        'was the audio tokenised by another codec?'
      )
    return codes + np.int32(self.codebook_start)

  def to_codes(self, ids: np.ndarray) -> np.ndarray:
    """The codec's codes among `ids`; ends, masks and text are left out."""
    codes = np.asarray(ids, np.int32) - np.int32(self.codebook_start)
    return codes[(codes >= 0) & (codes < self.codebook_size)]

  def spans(self, ids: np.ndarray) -> np.ndarray:
    """Maximal runs of audio-class ids: int32 [spans, 2], start and end (exclusive)."""
    audio = np.concatenate([[False], self.is_audio(ids), [False]])
    return np.flatnonzero(audio[1:] != audio[:-1]).reshape(-1, 2).astype(np.int32)

  def is_prompt(self, tokens: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """bool [spans]: which spans of a document a user gave, told by their end token.

    That token is the span's last one; or, where a vocabulary has it in text class, the one
    behind the span.
    """
    behind = np.minimum(spans[:, 1], len(tokens) - 1)
    return (tokens[spans[:, 1] - 1] == self.end_prompt) | (tokens[behind] == self.end_prompt)

  def check(self, ids: np.ndarray, name: str) -> None:
    """Raises VocabularyError, naming `name`, if an id is unknown or is the mask."""
    ids = np.asarray(ids)
    bad = (ids < 0) | (ids >= self.size) | (ids == self.mask)
    if bad.any():
      at = int(np.argmax(bad))
      what = 'the mask token' if ids[at] == self.mask else f'not in [0, {self.size})'
      raise VocabularyError(f'{name}: token {ids[at]} at position {at} is {what}')

  def to_json(self) -> str:
    """A canonical text form."""
    return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1)

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes `vocabulary.json` into `directory`."""
    pathlib.Path(directory, FILE).write_text(self.to_json() + '\n', encoding='utf-8')

  @classmethod
  def load(cls, directory: str | pathlib.Path) -> 'Vocabulary':
    """Reads what `save` wrote.

    Raises:
      VocabularyError: the file is missing or damaged.
    """
    path = pathlib.Path(directory, FILE)
    try:
      values = json_file.read(path)
      for field in dataclasses.fields(cls):
        if type(values[field.name]) is not field.type:
          raise ValueError(f'{field.name} must be of type {field.type.__name__}')
      return cls(**values)
    except (OSError, ValueError, TypeError, KeyError) as error:
      raise VocabularyError(f'{path}: not a vocabulary ({error})') from error
