"""Text while it is written: tokens in, characters out."""

import numpy as np

from ttt_jax import tokenizer as tokenizer_lib

_UNFINISHED = '\ufffd'  # what tokenizers put for bytes that are no character, or not yet


class Writing:
  """A run of text tokens, given out as far as it is certain."""

  def __init__(self, tokenizer: tokenizer_lib.Tokenizer):
    """Begins with nothing."""
    self._tokenizer = tokenizer
    self._ids: list[int] = []
    self._given = 0

  def push(self, ids: np.ndarray) -> str:
    """Characters that are certain once these tokens, int [n], are known; maybe none.

    A character may be spelt by several tokens.
    """
    self._ids += ids.tolist()
    return self._take(self._tokenizer.decode(self._ids).rstrip(_UNFINISHED))

  def flush(self) -> str:
    """The other characters; tokens pushed later are another run."""
    rest = self._take(self._tokenizer.decode(self._ids))
    self._ids, self._given = [], 0
    return rest

  def _take(self, text: str) -> str:
    new = text[self._given :]
    self._given = max(self._given, len(text))
    return new
