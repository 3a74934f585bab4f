"""pocketsphinx with its own English model, and a grammar of what can be said."""

import ctypes
import hashlib
import os
import pathlib
import re
import tempfile
from collections.abc import Sequence
from typing import Self

import numpy as np
import pocketsphinx

from ttt_jax.codecs import audio_io, spectrogram
from ttt_jax.evaluation.recognisers import recogniser

_PADDING = 0.4  # seconds around what is heard, also filled with noise
# In a loop over words the default, 0.65, hears short words in every click and pause.
_INSERTION = 1e-2
_MARKS = '.,;:!?"()'


class PocketSphinx(recogniser.Recogniser):
  """Hears utterances of a grammar.

  The less a grammar allows, the fewer the mistakes: give it what is said in the task (ten
  digits for digit strings, `single=True` for answers of one word). In a loop over many words it
  mistakes even clear speech; where sentences have a form, let the grammar tell it.

  Attributes:
    fingerprint: of the grammar.
  """

  kind = 'pocketsphinx'

  def __init__(self, grammar: str, *, single: bool = False):
    """Takes a grammar in JSGF, the grammar format of Java's speech interface.

    Args:
      grammar: its text; its first public rule is what can be heard.
      single: whether an utterance is one word.

    Raises:
      RecogniserError: it is no such grammar, it names a rule that it does not define, or a
        word of it has no known pronunciation.
    """
    self.fingerprint = hashlib.sha256(grammar.encode()).hexdigest()
    # Batch normalisation takes every utterance by itself. The default, live, carries an
    # average from one to the next, and what is heard would depend on the order.
    options = {} if single else {'wip': _INSERTION}
    self._decoder = pocketsphinx.Decoder(
      lm=None, samprate=spectrogram.SAMPLE_RATE, cmn='batch', loglevel='FATAL', **options
    )
    if wrong := _add(self._decoder, grammar):
      raise recogniser.RecogniserError(
        f'pocketsphinx cannot read the grammar ({wrong}): it must be JSGF with a public rule, '
        'of words in lower case that are in its dictionary'
      )
    self._decoder.activate_search('words')

  @classmethod
  def of(cls, words: Sequence[str], *, single: bool = False) -> Self:
    """Hears words of a closed vocabulary.

    Args:
      words: all that can be heard, lower case.
      single: whether an utterance is one word. By default any number of them, one or more.

    Raises:
      RecogniserError: there are no words, or one has no known pronunciation.
    """
    if isinstance(words, str) or not words:
      raise recogniser.RecogniserError(
        f'pocketsphinx needs a sequence of words that can be said, got {words!r}'
      )
    known = pocketsphinx.Decoder(lm=None, loglevel='FATAL').lookup_word
    for word in words:
      if not re.fullmatch(r"[a-z]+(?:'[a-z]+)*", word) or not known(word):
        raise recogniser.RecogniserError(
          f'pocketsphinx knows no pronunciation of {word!r}: choose another recogniser, such '
          'as transformers:MODEL'
        )
    utterance = f'({" | ".join(words)})' + ('' if single else '+')
    grammar = f'#JSGF V1.0;\ngrammar words;\npublic <utterance> = {utterance};\n'
    return cls(grammar, single=single)

  @classmethod
  def make(cls, argument: str, texts: Sequence[str]) -> Self:
    """Listens by the grammar in the file `argument`, or for the words of `texts`.

    Without a grammar an utterance is one word where each text is.

    Raises:
      RecogniserError: the file cannot be read, or pocketsphinx does not know a word.
    """
    if argument:
      try:
        return cls(pathlib.Path(argument).read_text(encoding='utf-8'))
      except OSError as error:
        reason = f'cannot be read ({error.strerror})'
      except (UnicodeDecodeError, recogniser.RecogniserError) as error:
        reason = str(error)
      raise recogniser.RecogniserError(f'{argument}: {reason}')
    said = [[word.strip(_MARKS) for word in text.lower().split()] for text in texts]
    words = sorted({word for words in said for word in words} - {''})
    return cls.of(words, single=all(len(words) == 1 for words in said))

  def _hear(self, wave: np.ndarray, sample_rate: int) -> str:
    wave = audio_io.resample(wave, sample_rate, spectrogram.SAMPLE_RATE)
    wave = np.pad(spectrogram.normalise_level(wave), round(_PADDING * spectrogram.SAMPLE_RATE))
    wave = spectrogram.comfort_noise(wave)
    samples = np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    self._decoder.start_utt()
    self._decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
    self._decoder.end_utt()
    hypothesis = self._decoder.hyp()
    return hypothesis.hypstr if hypothesis else ''


def _add(decoder: pocketsphinx.Decoder, grammar: str) -> str:
  """Gives the decoder its grammar, `words`; what is wrong with that, '' if nothing is.

  The library tells it on standard error alone, and goes on with grammars that hear nothing,
  such as one that names a rule which is nowhere defined. Its scanner copies what it does not
  know to standard output, where results are.
  """
  c, wrong = ctypes.CDLL(None), ''
  with tempfile.TemporaryFile() as said:
    c.fflush(None)
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    try:
      for stream in kept:
        os.dup2(said.fileno(), stream)
      pocketsphinx.set_loglevel('ERROR')
      decoder.add_jsgf_string('words', grammar)
    except ValueError as error:
      wrong = str(error)
    finally:
      pocketsphinx.set_loglevel('FATAL')
      c.fflush(None)
      for stream, own in kept.items():
        os.dup2(own, stream)
        os.close(own)
    said.seek(0)
    text = said.read().decode(errors='replace')
  # Where in the grammar it is, the library does not rightly know.
  reasons = re.findall(
    r'ERROR: "[^"\n]*", line \d+: (.*?)(?: at line .*)?$', text, re.MULTILINE
  )
  return reasons[0] if reasons else wrong
