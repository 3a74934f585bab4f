"""What gives ids their meaning: kept beside every data set and every trained model."""

import json
import pathlib
from typing import NamedTuple

from ttt_jax import chat, errors, json_file
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs import kinds

DIRECTORY = 'assets'
PROMPTS = 'prompts.json'

# The tasks that the command-line tools know by name.
SPEAK, TRANSCRIBE, ANSWER = 'speak', 'transcribe', 'answer'


class AssetError(errors.UserError):
  """Assets are missing, damaged, or others than were expected."""


class Assets(NamedTuple):
  """Vocabulary, text tokenizer, codec, and the prompts of the tasks.

  Attributes:
    vocabulary: ids and their classes.
    tokenizer: of text.
    codec: of audio.
    prompts: for each task, the system prompts that name it; one a voice, where the task
      speaks.
  """

  vocabulary: vocabulary_lib.Vocabulary
  tokenizer: tokenizer_lib.Tokenizer
  codec: codec_lib.Codec
  prompts: dict[str, list[str]]

  @property
  def fingerprints(self) -> dict[str, str]:
    """Names of the vocabulary, the tokenizer and the codec."""
    parts = ('vocabulary', 'tokenizer', 'codec')
    return {name: getattr(self, name).fingerprint for name in parts}

  @property
  def template(self) -> chat.Template:
    """The chat template over these ids."""
    return chat.Template(self.tokenizer, self.vocabulary)

  def prompt(self, task: str, voice: int = 0) -> str:
    """The system prompt of `task`.

    Raises:
      AssetError: no prompt is known for it, or not for this voice.
    """
    known = self.prompts.get(task, [])
    if not known:
      raise AssetError(
        f'the model has no prompt for task {task!r}: give it some in '
        f'{DIRECTORY}/{PROMPTS} of its run, or convert it with --prompts=FILE'
      )
    if not 0 <= voice < len(known):
      there = (
        f'voices are 0 to {len(known) - 1}' if len(known) > 1 else 'there is voice 0 alone'
      )
      raise AssetError(f'task {task!r} has no prompt for voice {voice}: {there}')
    return known[voice]

  def refuse_mismatch(self, found: dict[str, str], name: str) -> None:
    """Raises AssetError if `name`, with fingerprints `found`, was made with others."""
    for part, mine in self.fingerprints.items():
      if found.get(part) != mine:
        raise AssetError(
          f'{name} was made with {part} {found.get(part)}, but is used with {part} {mine}: '
          'use the assets that lie beside it, or make it again'
        )

  def save(self, directory: str | pathlib.Path) -> None:
    """Writes everything into `directory`, which is made."""
    pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
    for part in (self.vocabulary, self.tokenizer, self.codec):
      part.save(directory)
    text = json.dumps(self.prompts, indent=1) + '\n'
    pathlib.Path(directory, PROMPTS).write_text(text, encoding='utf-8')


def load(directory: str | pathlib.Path) -> Assets:
  """Reads what `Assets.save` wrote.

  Raises:
    AssetError, VocabularyError, CodecError: a file is missing, damaged, or does not fit
      the others.
  """
  prompts = read_prompts(pathlib.Path(directory, PROMPTS))
  vocabulary = vocabulary_lib.Vocabulary.load(directory)
  tokenizer, codec = tokenizer_lib.load(directory), kinds.load_codec(directory)
  if codec.codebook_size != vocabulary.codebook_size:
    raise AssetError(
      f'{directory}: the codec has {codec.codebook_size} codes, the vocabulary has room for '
      f'{vocabulary.codebook_size}'
    )
  return Assets(vocabulary, tokenizer, codec, prompts)


def read_prompts(path: str | pathlib.Path) -> dict[str, list[str]]:
  """System prompts of tasks, from a JSON file: {task: [prompt, ...]}.

  Raises:
    AssetError: it is something else.
  """
  try:
    prompts = json_file.read(path)
  except (OSError, ValueError) as error:
    raise AssetError(f'{path}: no prompts of tasks here ({error})') from error
  ok = isinstance(prompts, dict) and all(
    isinstance(known, list) and all(isinstance(text, str) for text in known)
    for known in prompts.values()
  )
  if not ok:
    raise AssetError(f'{path}: must be {{task: [prompt, ...]}}')
  return prompts
