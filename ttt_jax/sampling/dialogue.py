"""One answer as it grows: the state machine that alternates text and audio.

Text is written left to right until a begin-of-audio token. Then masked blocks are appended
and revealed, until a finished block holds an end-of-audio token: what follows it in the
block is dropped, and text goes on, until the end of the turn. Pure bookkeeping on ids: the
network is asked elsewhere.
"""

import numpy as np

from ttt_jax import config as config_lib
from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.sampling import reveal


class Dialogue:
  """A prompt and the answer to it, so far.

  Attributes:
    tokens: list of ids, masks of the current block included.
    done: the answer has ended.
    complete: it ended by itself; false where a limit ended it or a span of it.
  """

  def __init__(
    self,
    prompt: np.ndarray,
    vocabulary: vocabulary_lib.Vocabulary,
    sampling: config_lib.Sampling,
    mask: config_lib.Mask,
  ):
    """Starts behind `prompt` (int [n], not empty): in audio if it ends by beginning some.

    Raises:
      VocabularyError: the prompt is empty, or has an unknown token.
    """
    if not len(prompt):
      raise vocabulary_lib.VocabularyError('the prompt is empty')
    vocabulary.check(prompt, 'the prompt')
    self._vocabulary, self._sampling, self._mask = vocabulary, sampling, mask
    self.tokens = [int(i) for i in prompt]
    self._prompt_length = len(self.tokens)
    self._text_left = sampling.max_text
    self._span: int | None = None  # where the current span begins; None in text
    self._block = 0  # where the current block begins
    self._step = 0  # diffusion steps done in it
    self.done, self.complete = False, True
    self._begins = (vocabulary.begin_audio, vocabulary.begin_last)
    if self.tokens[-1] in self._begins:
      self._open_span()

  @property
  def answer(self) -> np.ndarray:
    """int32 [n], what follows the prompt."""
    return np.array(self.tokens[self._prompt_length :], np.int32)

  @property
  def in_audio(self) -> bool:
    """Whether audio is wanted next."""
    return self._span is not None

  def query(self) -> np.ndarray:
    """The positions whose predictions are wanted next: int [block_size].

    In text the last position stands in all places.
    """
    size = self._sampling.block_size
    if self._span is None:
      return np.full(size, len(self.tokens) - 1)
    return np.arange(self._block, self._block + size)

  def view(self) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and `kv_end`, int32 [n] each: what the network reads (`kv_start` is 0)."""
    tokens = np.array(self.tokens, np.int32)
    spans = self._vocabulary.spans(tokens)
    groups = mask_lib.document_groups(tokens, spans, self._mask, self._vocabulary)
    return tokens, mask_lib.group_ends(groups)

  def advance(self, ids: np.ndarray, confidence: np.ndarray) -> None:
    """Takes the predictions at `query()`: int and float [block_size]."""
    if self._span is None:
      self._write(int(ids[0]))
    else:
      self._reveal(ids, confidence)

  def _write(self, token: int) -> None:
    self.tokens.append(token)
    self._text_left -= 1
    if token == self._vocabulary.turn_end:
      self.done = True
    elif self._text_left <= 0:
      self.done, self.complete = True, False
    elif token in self._begins:
      self._open_span()

  def _open_span(self) -> None:
    self._span = len(self.tokens)
    self._open_block()

  def _open_block(self) -> None:
    self._block, self._step = len(self.tokens), 0
    self.tokens += [self._vocabulary.mask] * self._sampling.block_size

  def _reveal(self, ids: np.ndarray, confidence: np.ndarray) -> None:
    sampling = self._sampling
    block = np.array(self.tokens[self._block :])
    masked = block == self._vocabulary.mask
    count = reveal.share(sampling.block_size, sampling.steps_per_block, self._step)
    chosen = reveal.most_confident(confidence, masked, count)
    block[chosen] = ids[chosen]
    self.tokens[self._block :] = block.tolist()
    self._step += 1
    if self._step == sampling.steps_per_block:
      self._close_block(block)

  def _close_block(self, block: np.ndarray) -> None:
    ends = np.flatnonzero(self._vocabulary.is_end(block))
    if len(ends):
      del self.tokens[self._block + ends[0] + 1 :]
      self._span = None
    elif len(self.tokens) - self._span + self._sampling.block_size > self._sampling.max_audio:
      last = self.tokens[self._span - 1] == self._vocabulary.begin_last
      self.tokens.append(self._vocabulary.end_last if last else self._vocabulary.end_inner)
      self._span, self.complete = None, False
    else:
      self._open_block()
