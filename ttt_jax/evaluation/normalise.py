"""Texts in one form, so that spelling is not counted as a mistake."""

import functools
from collections.abc import Callable

from ttt_jax import errors

EXTRA = "pip install 'ttt_jax[evaluate]'"


def normaliser(name: str) -> Callable[[str], str]:
  """How texts are brought into one form.

  Args:
    name: 'none'; or one of those that Whisper was judged with (arXiv 2212.04356, appendix C):
      'basic' drops case, punctuation and what stands in brackets; 'english' also spells out
      contractions, writes numbers in digits, and drops hesitations and British spelling.

  Raises:
    UserError: the library is not installed.
  """
  return {'none': _nothing, 'basic': _basic, 'english': _english}[name]()


def _nothing() -> Callable[[str], str]:
  return str.strip


@functools.cache
def _basic() -> Callable[[str], str]:
  try:
    from whisper_normalizer import basic
  except ImportError as error:
    raise _missing('basic') from error
  made = basic.BasicTextNormalizer()
  return lambda text: made(text).strip()


@functools.cache
def _english() -> Callable[[str], str]:
  try:
    from whisper_normalizer import english
  except ImportError as error:
    raise _missing('english') from error
  made = english.EnglishTextNormalizer()
  return lambda text: made(text).strip()


def _missing(name: str) -> errors.UserError:
  return errors.UserError(f'normaliser {name!r} needs whisper-normalizer: {EXTRA}')
