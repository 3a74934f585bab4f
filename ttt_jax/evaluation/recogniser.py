"""An independent listener: what words are in a waveform, out of a closed vocabulary."""

import re
from collections.abc import Sequence

import numpy as np

from ttt_jax import errors
from ttt_jax.codecs import audio_io, spectrogram

_PADDING = 0.4  # seconds around what is heard, also filled with noise
# In a loop over words the default, 0.65, hears short words in every click and pause.
_INSERTION = 1e-2


class Recogniser:
  """pocketsphinx with its own English model and a grammar of some words.

  The fewer words, the fewer mistakes: give it the words of the task (ten digits for digit
  strings, `single=True` for answers of one word), not all that there are.
  """

  def __init__(self, words: Sequence[str], *, single: bool = False):
    """Builds the grammar.

    Args:
      words: all that can be heard, lower case.
      single: whether an utterance is one word. By default any number of them, one or more.

    Raises:
      ImportError: pocketsphinx is not installed.
      ValueError: there are no words, or one has no known pronunciation.
    """
    try:
      import pocketsphinx
    except ImportError as error:
      raise ImportError(
        "listening needs pocketsphinx: pip install 'ttt_jax[speech]'"
      ) from error
    if isinstance(words, str) or not words:
      raise ValueError(f'a recogniser needs a sequence of words, got {words!r}')
    # Batch normalisation takes every utterance by itself. The default, live, carries an
    # average from one to the next, and what is heard would depend on the order.
    options = {} if single else {'wip': _INSERTION}
    self._decoder = pocketsphinx.Decoder(
      lm=None, samprate=spectrogram.SAMPLE_RATE, cmn='batch', loglevel='FATAL', **options
    )
    for word in words:
      if not re.fullmatch(r"[a-z]+(?:'[a-z]+)*", word) or not self._decoder.lookup_word(word):
        raise errors.UserError(f'the recogniser knows no pronunciation of {word!r}')
    utterance = f'({" | ".join(words)})' + ('' if single else '+')
    grammar = f'#JSGF V1.0;\ngrammar words;\npublic <utterance> = {utterance};\n'
    self._decoder.add_jsgf_string('words', grammar)
    self._decoder.activate_search('words')

  def hear(self, wave: np.ndarray, sample_rate: int) -> str:
    """Listens to one utterance.

    Args:
      wave: `[S]` float32 samples; S may be 0.
      sample_rate: samples a second.

    Returns:
      The words, separated by blanks; '' for no sound, or where no words fit.

    Raises:
      AudioError: `wave` is not a waveform.
    """
    if isinstance(wave, np.ndarray) and wave.shape == (0,):
      return ''
    wave = audio_io.resample(wave, sample_rate, spectrogram.SAMPLE_RATE)
    wave = np.pad(spectrogram.normalise_level(wave), round(_PADDING * spectrogram.SAMPLE_RATE))
    wave = spectrogram.comfort_noise(wave)
    samples = np.rint(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    self._decoder.start_utt()
    self._decoder.process_raw(samples.tobytes(), no_search=False, full_utt=True)
    self._decoder.end_utt()
    hypothesis = self._decoder.hyp()
    return hypothesis.hypstr if hypothesis else ''


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
  """Words substituted, deleted and inserted, over the words of all references.

  Args:
    references: what was said, none of them empty.
    hypotheses: what was heard, as many; empty where nothing was.

  Returns:
    (S + D + I) / N; 0 is perfect, and it can exceed 1.

  Raises:
    ImportError: jiwer is not installed.
    ValueError: there are no references, one has no words, or the lengths differ.
  """
  try:
    import jiwer
  except ImportError as error:
    raise ImportError("word error rates need jiwer: pip install 'ttt_jax[speech]'") from error
  if not references:
    raise ValueError('no references: a word error rate needs at least one')
  if len(references) != len(hypotheses):
    raise ValueError(f'{len(references)} references but {len(hypotheses)} hypotheses')
  for i, reference in enumerate(references):
    if not reference.strip():
      raise ValueError(f'reference {i} has no words')
  return float(jiwer.wer(list(references), list(hypotheses)))
