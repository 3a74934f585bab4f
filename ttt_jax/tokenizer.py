"""Text <-> ids, behind one interface: sentencepiece models and tokenizer.json files."""

import contextlib
import hashlib
import io
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from ttt_jax import plain_file, vocabulary


class Tokenizer(Protocol):
  """What the rest of the project asks of a text tokenizer.

  `encode` never yields a special token, whatever the text says: specials are placed by
  id, so that a user cannot forge the end of a turn. Tokenizers can be pickled.

  Attributes:
    size: one more than the largest id.
    fingerprint: of the tokenizer's file: equal for equal files.
  """

  size: int
  fingerprint: str

  def encode(self, text: str) -> list[int]:
    """Ids of `text`."""

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; specials, and ids that are not text, are left out."""

  def has(self, name: str) -> bool:
    """Whether there is a special token `name`."""

  def special(self, name: str) -> int:
    """Id of the special token `name`; raises VocabularyError if there is none."""

  def added(self, names: Sequence[str]) -> 'Tokenizer':
    """A tokenizer that knows these specials too; new ones get the next ids, in order."""

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes the tokenizer into `directory`; `load` reads it."""


@contextlib.contextmanager
def _library(wrong: str) -> Iterator[None]:
  """What the libraries raise becomes VocabularyError: errors of any kind, and Rust's panics."""
  try:
    yield
  except BaseException as error:
    if not isinstance(error, Exception) and type(error).__module__ != 'pyo3_runtime':
      raise
    raise vocabulary.VocabularyError(f'{wrong} ({error})') from error


_NO_TEXT = 'the tokenizer cannot make ids of this text'
_NO_IDS = 'the tokenizer cannot make text of these ids'


class SentencePiece:
  """A sentencepiece model; byte-exact in the round trip where it has byte pieces."""

  FILE = 'tokenizer.model'

  def __init__(self, model: bytes):
    """Takes the bytes of a `.model` file.

    Raises:
      VocabularyError: it is none.
    """
    if not model:  # the library takes that for no file at all
      raise vocabulary.VocabularyError('not a sentencepiece model: it is empty')
    self.model = model
    with _library('not a sentencepiece model'):
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
      sentencepiece_model_pb2.ModelProto.FromString(model)  # what `added` reads may not fit
    self.size = self._processor.vocab_size()
    self.fingerprint = hashlib.sha256(model).hexdigest()[:16]

  def __reduce__(self):
    return (SentencePiece, (self.model,))

  def encode(self, text: str) -> list[int]:
    """Ids of `text`; raises VocabularyError where the model is damaged."""
    with _library(_NO_TEXT):
      return self._processor.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; control symbols, and ids beyond the last piece, are left out.

    Raises:
      VocabularyError: the model is damaged.
    """
    with _library(_NO_IDS):
      return self._processor.decode([int(i) for i in ids if i < self.size])

  def has(self, name: str) -> bool:
    """Whether there is a control symbol `name`."""
    number = self._processor.piece_to_id(name)
    return 0 <= number < self.size and self._processor.is_control(number)

  def special(self, name: str) -> int:
    """Id of the control symbol `name`.

    Raises:
      VocabularyError: this tokenizer has no such control symbol.
    """
    if not self.has(name):
      raise vocabulary.VocabularyError(f'the tokenizer has no control symbol {name!r}')
    return self._processor.piece_to_id(name)

  def added(self, names: Sequence[str]) -> 'SentencePiece':
    """A tokenizer that holds these control symbols too.

    Raises:
      VocabularyError: one of them is a piece of text already.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(self.model)
    for name in names:
      if not self.has(name):
        proto.pieces.add(piece=name, score=0, type=proto.SentencePiece.CONTROL)
    return SentencePiece(proto.SerializeToString(deterministic=True))

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes `tokenizer.model` into `directory`."""
    pathlib.Path(directory, self.FILE).write_bytes(self.model)

  @classmethod
  def train(cls, sentences: Iterable[str], size: int) -> 'SentencePiece':
    """A tokenizer of at most `size` pieces for text like `sentences`.

    Bytes stand in for what the pieces cannot spell, so any text can be encoded.
    """
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(sentences),
      model_writer=out,
      model_type='bpe',  # frequent words end up as one piece each
      vocab_size=size,
      hard_vocab_limit=False,
      byte_fallback=True,
      normalization_rule_name='identity',
      remove_extra_whitespaces=False,
      control_symbols=list(vocabulary.TEXT_SPECIALS),
      # A line break is one piece, alone (where a dummy space precedes it) and in text.
      user_defined_symbols=['\n', '\u2581\n'],
      bos_id=-1,
      eos_id=-1,
      minloglevel=2,
    )
    return cls(out.getvalue())


class HuggingFace:
  """A `tokenizer.json`; ids are those that transformers gives, without added specials.

  The round trip is exact as far as the file's own normalizer leaves text alone (Qwen's
  composes accents, NFC).
  """

  FILE = 'tokenizer.json'

  def __init__(self, text: str):
    """Takes the text of a `tokenizer.json`.

    Raises:
      VocabularyError: it is none.
    """
    self.text = text
    with _library('not a tokenizer.json'):
      content = json.loads(text)
      for token in content['added_tokens']:
        # What the file forgot to call special must be no less hard to forge.
        token['special'] |= vocabulary.is_mark(token['content'])
      self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
      self._specials = {token['content']: token['id'] for token in content['added_tokens']}
      self.size = max(self._tokenizer.get_vocab().values()) + 1
    self._tokenizer.encode_special_tokens = True  # as text, piece by piece
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]

  def __reduce__(self):
    return (HuggingFace, (self.text,))

  def encode(self, text: str) -> list[int]:
    """Ids of `text`; raises VocabularyError where the file has no token for a part of it."""
    with _library(_NO_TEXT):
      return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; specials, and ids that mean nothing, are left out.

    Raises:
      VocabularyError: the file is damaged.
    """
    with _library(_NO_IDS):
      return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

  def has(self, name: str) -> bool:
    """Whether there is an added token `name`."""
    return name in self._specials

  def special(self, name: str) -> int:
    """Id of the added token `name`.

    Raises:
      VocabularyError: this tokenizer has no such token.
    """
    if not self.has(name):
      raise vocabulary.VocabularyError(f'the tokenizer has no added token {name!r}')
    return self._specials[name]

  def added(self, names: Sequence[str]) -> 'HuggingFace':
    """A tokenizer that holds these special tokens too."""
    content = json.loads(self.text)
    new = [name for name in names if not self.has(name)]
    content['added_tokens'] += [
      {
        'id': index,
        'content': name,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': True,
      }
      for index, name in enumerate(new, self.size)
    ]
    made = HuggingFace(json.dumps(content, ensure_ascii=False))
    # The file's own ids are not binding for the library: it counts on from its pieces.
    wrong = [name for name in new if made._tokenizer.token_to_id(name) != made.special(name)]
    if wrong:
      raise vocabulary.VocabularyError(
        f'{wrong[0]!r} cannot be added to a tokenizer.json with holes in its ids'
      )
    return made

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes `tokenizer.json` into `directory`."""
    pathlib.Path(directory, self.FILE).write_text(self.text, encoding='utf-8', newline='')


def load(directory: str | pathlib.Path) -> Tokenizer:
  """Reads the text tokenizer kept in `directory`: tokenizer.json or else tokenizer.model.

  Raises:
    VocabularyError: there is none, or it is damaged.
  """
  kind = HuggingFace if pathlib.Path(directory, HuggingFace.FILE).exists() else SentencePiece
  path = pathlib.Path(directory, kind.FILE)
  try:
    content = plain_file.read(path)
    return kind(content.decode('utf-8') if kind is HuggingFace else content)
  except vocabulary.VocabularyError as error:
    raise vocabulary.VocabularyError(f'{path}: {error}') from error
  except (OSError, ValueError) as error:
    raise vocabulary.VocabularyError(
      f'{path}: not a text tokenizer ({error}); it needs a tokenizer.json or a '
      'sentencepiece tokenizer.model'
    ) from error
