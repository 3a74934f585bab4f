"""Text <-> ids, behind one interface."""

import hashlib
import io
import pathlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import sentencepiece

from ttt_jax import vocabulary

FILE = 'tokenizer.model'


class Tokenizer(Protocol):
  """What the rest of the project asks of a text tokenizer.

  `encode` never yields a special token, whatever the text says: specials are placed by
  id, so that a user cannot forge the end of a turn.
  """

  size: int
  fingerprint: str

  def encode(self, text: str) -> list[int]: ...

  def decode(self, ids: Sequence[int]) -> str: ...

  def special(self, name: str) -> int: ...

  def save(self, directory: str | pathlib.Path) -> None: ...


class SentencePiece:
  """A sentencepiece model; picklable, and byte-exact in the round trip."""

  def __init__(self, model: bytes):
    """Takes the bytes of a `.model` file."""
    self._model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    self.size = self._processor.vocab_size()
    self.fingerprint = hashlib.sha256(model).hexdigest()[:16]

  def __reduce__(self):
    return (SentencePiece, (self._model,))

  def encode(self, text: str) -> list[int]:
    """Ids of `text`."""
    return self._processor.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Text of `ids`; control symbols are left out."""
    return self._processor.decode([int(i) for i in ids])

  def special(self, name: str) -> int:
    """Id of the special token `name`.

    Raises:
      VocabularyError: this tokenizer has no such control symbol.
    """
    index = self._processor.piece_to_id(name)
    if not self._processor.is_control(index):
      raise vocabulary.VocabularyError(f'the tokenizer has no control symbol {name!r}')
    return index

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes `tokenizer.model` into `directory`."""
    pathlib.Path(directory, FILE).write_bytes(self._model)

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


def load(directory: str | pathlib.Path) -> Tokenizer:
  """Reads the text tokenizer kept in `directory`.

  Raises:
    VocabularyError: there is none, or it is damaged.
  """
  path = pathlib.Path(directory, FILE)
  try:
    return SentencePiece(path.read_bytes())
  except (OSError, RuntimeError) as error:
    raise vocabulary.VocabularyError(f'{path}: not a sentencepiece model ({error})') from error
