"""Finds recognisers: built in, or plug-ins of other distributions.

A plug-in is an entry point of the group `ttt_jax.recognisers`: its name is the kind, its value
'module:Class'. docs/evaluation.md has a complete one.
"""

from collections.abc import Sequence

from ttt_jax import plugins
from ttt_jax.evaluation.recognisers import recogniser

GROUP = 'ttt_jax.recognisers'

_HERE = 'ttt_jax.evaluation.recognisers'
_KINDS = plugins.Kinds(
  GROUP,
  recogniser.Recogniser,
  recogniser.RecogniserError,
  built_in={
    'pocketsphinx': f'{_HERE}.sphinx:PocketSphinx',
    'transformers': f'{_HERE}.plugins.pipeline:Pipeline',
  },
  extras={
    'pocketsphinx': "pip install 'ttt_jax[speech]'",
    'transformers': "pip install 'ttt_jax[asr]'",
  },
)
known, find = _KINDS.known, _KINDS.find


def make(name: str, texts: Sequence[str]) -> recogniser.Recogniser:
  """A listener for one kind of utterance.

  Args:
    name: 'kind' or 'kind:argument'.
    texts: all that should be said.

  Raises:
    RecogniserError: there is no such recogniser, or it cannot be used.
  """
  kind, _, argument = name.partition(':')
  return find(kind).make(argument, texts)
