"""From a Hugging Face checkpoint to the folder of a run."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import tqdm

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax import description, folders, parameters
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import external, kinds
from ttt_jax.conversion import extend, families, table, tensors

DTYPES = {
  'float32': np.dtype('float32'),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype('float16'),
}

# What an export of ours carries for the way back: a folder of a run, without checkpoints.
OWN = 'ttt'
# The embedding's rows are padded to a multiple of it, so that any mesh can cut them.
ROWS = 2048

_START = 'audio_token_id_start'  # where the authors' config.json says it


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a source does not say.

  Attributes:
    audio_codebook: codes that a text-only vocabulary is extended by; None where the source
      has audio tokens.
    codec: folder of the codec; None where it lives elsewhere.
    prompts: for each task, its system prompts.
    dtype: of the parameters; None keeps that of the source.
    seed: of the new rows.
  """

  audio_codebook: int | None = None
  codec: str | None = None
  prompts: Mapping[str, list[str]] = dataclasses.field(default_factory=dict)
  dtype: str | None = None
  seed: int = 0


def convert(
  source: str | pathlib.Path,
  out: str | pathlib.Path,
  settings: Settings,
  defaults: config_lib.Config,
) -> config_lib.Config:
  """Writes the folder of a run with the source's parameters as its step 0.

  Ids that the source's tokenizer knows keep their rows, bit for bit. The rows behind them
  (padding of the source, or none) become those of the new tokens.

  Args:
    source: folder of the checkpoint.
    out: a new folder.
    settings: what the source does not say.
    defaults: all settings but those of the model; an export of ours has its own.

  Returns:
    The settings that were written.

  Raises:
    UserError: the source cannot be converted, or `out` cannot be written.
  """
  source = pathlib.Path(source)
  name = str(source / families.CONFIG)
  values = families.read_config(source)
  if (source / OWN).is_dir():
    defaults = description.config_of(source / OWN)
  model, their_rows = families.model_from(values, defaults.model, name)
  found = tensors.Folder(source)
  stored = _without_copies(found, model)
  table.check({key: found.shapes[key] for key in stored}, model, their_rows)
  assets, known = _assets(source, values, settings)
  if known > their_rows:
    raise table.ConversionError(
      f'{source}: the tokenizer has {known} ids, but the embedding {their_rows} rows'
    )
  dtypes = {settings.dtype or found.dtypes[key] for key in stored}
  stored_as = dtypes.pop() if len(dtypes) == 1 else 'float32'  # the widest: nothing is rounded
  if not (source / OWN).is_dir():
    halves = 'bfloat16' in (stored_as, *found.dtypes.values())
    computed = 'bfloat16' if halves else 'float32'
    model = dataclasses.replace(model, dtype=computed, vocabulary_multiple=ROWS)
  config = dataclasses.replace(defaults, model=model)
  with folders.new(out) as staging:
    lazy = _Shown(found, stored)
    size = assets.vocabulary.size
    params = table.to_ours(
      lazy, model, their_rows, size=size, kept=known, dtype=DTYPES[stored_as]
    )
    lazy.close()
    for number, key in enumerate(('embedding', 'head')):
      if key in params and known < size:
        extend.draw_rows(params[key], known, size, [settings.seed, number])
    about = description.of(config, assets.vocabulary.fingerprint)
    description.write(staging, about, assets)
    parameters.save(staging, params, about)
  return config


class _Shown(Mapping[str, np.ndarray]):
  """Tensors that are read when they are asked for, under a bar of progress."""

  def __init__(self, folder: tensors.Folder, names: list[str]):
    self._folder, self._names = folder, names
    self._bar = tqdm.tqdm(total=len(names), desc='convert', unit='tensor')

  def __getitem__(self, name: str) -> np.ndarray:
    self._bar.update()
    return self._folder[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)

  def close(self) -> None:
    self._bar.close()


def _without_copies(found: tensors.Folder, model: config_lib.Model) -> list[str]:
  """Names of the tensors that are parameters.

  Some files keep the head of a tied model beside the embedding, and old ones the constant
  frequencies of rotary positions.
  """
  names = [name for name in found if not name.endswith('.rotary_emb.inv_freq')]
  head, embedding = 'lm_head.weight', 'model.embed_tokens.weight'
  if model.tied and head in found and embedding in found:
    if not np.array_equal(found[head], found[embedding]):
      raise table.ConversionError(
        f'tie_word_embeddings is true, but {head} is not {embedding}: set it to false'
      )
    names.remove(head)
  return names


def _assets(
  source: pathlib.Path, values: Mapping, settings: Settings
) -> tuple[assets_lib.Assets, int]:
  """What the ids mean, and how many of them the source's tokenizer knows."""
  if (source / OWN).is_dir():
    assets = assets_lib.load(source / OWN / assets_lib.DIRECTORY)
    known = assets.vocabulary.size
    extended = False
  else:
    tokenizer = tokenizer_lib.load(source)
    known = tokenizer.size
    extended = not _has_audio(tokenizer)
    if extended:
      vocabulary, tokenizer = _extended(source, tokenizer, settings.audio_codebook)
    else:
      vocabulary = _found(source, tokenizer, values.get(_START))
    elsewhere = external.External(source.resolve().name, vocabulary.codebook_size)
    assets = assets_lib.Assets(vocabulary, tokenizer, elsewhere, {})
  codes = assets.vocabulary.codebook_size
  if not extended and settings.audio_codebook not in (None, codes):
    raise table.ConversionError(f'{source} has {codes} codes: leave out --audio-codebook')
  if settings.codec:
    assets = assets._replace(codec=kinds.load_codec(settings.codec))
  if assets.codec.codebook_size != codes:
    raise table.ConversionError(
      f'{settings.codec}: {assets.codec.codebook_size} codes, but the vocabulary has {codes}'
    )
  return assets._replace(prompts={**assets.prompts, **settings.prompts}), known


def _has_audio(tokenizer: tokenizer_lib.Tokenizer) -> bool:
  """Whether there is any of the tokens that stand in audio."""
  return any(map(tokenizer.has, (*vocabulary_lib.AUDIO_SPECIALS, vocabulary_lib.code_name(0))))


def _extended(source: pathlib.Path, tokenizer: tokenizer_lib.Tokenizer, codes: int | None):
  """A vocabulary of text with audio behind it, and the tokenizer that it extends."""
  if not codes:
    raise table.ConversionError(
      f'{source}: the tokenizer has no audio tokens; --audio-codebook=CODES adds them'
    )
  tokenizer = tokenizer.added(vocabulary_lib.TEXT_SPECIALS)
  return vocabulary_lib.Vocabulary.extend(tokenizer, codes), tokenizer


def _found(source: pathlib.Path, tokenizer: tokenizer_lib.Tokenizer, start):
  """The vocabulary that the tokenizer has whole."""
  if start is not None and not isinstance(start, int):
    raise table.ConversionError(f'{source}: {_START} is {start!r}, but must be an id')
  try:
    return vocabulary_lib.Vocabulary.find(tokenizer, start)
  except vocabulary_lib.VocabularyError as error:
    raise table.ConversionError(f'{source}: {error}') from error
