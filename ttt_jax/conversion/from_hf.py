"""From a Hugging Face checkpoint to the folder of a run."""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
import tqdm

from ttt_jax import assets as assets_lib
from ttt_jax import checkpoint
from ttt_jax import config as config_lib
from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs import external
from ttt_jax.conversion import extend, families, table, tensors

DTYPES = {
  'float32': np.dtype('float32'),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype('float16'),
}

# What an export of ours carries beside what transformers reads (see to_hf.py).
SECTION, ASSETS = 'ttt', 'ttt_assets'

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
    defaults: all settings but those of the model.

  Returns:
    The settings that were written.

  Raises:
    UserError: the source cannot be converted, or `out` cannot be written.
  """
  source, out = pathlib.Path(source), pathlib.Path(out)
  name = str(source / families.CONFIG)
  values = families.read_config(source)
  model, their_rows = families.model_from(values, defaults.model, name)
  found = tensors.Folder(source)
  stored = _without_copies(found, model)
  table.check({key: found.shapes[key] for key in stored}, model, their_rows)
  assets, known = _assets(source, values, settings)
  if known > their_rows:
    raise table.ConversionError(
      f'{source}: the tokenizer has {known} ids, but the embedding {their_rows} rows'
    )
  config = _config(values, defaults, model, name)
  dtype = DTYPES[settings.dtype or _source_dtype(found)]
  refuse_used(out)
  lazy = _Shown(found, stored)
  params = table.to_ours(
    lazy, model, their_rows, size=assets.vocabulary.size, kept=known, dtype=dtype
  )
  lazy.close()
  for number, key in enumerate(('embedding', 'head')):
    if key in params and known < assets.vocabulary.size:
      extend.draw_rows(params[key], known, assets.vocabulary.size, [settings.seed, number])
  _write(out, config, assets, params)
  return config


def refuse_used(out: pathlib.Path) -> None:
  """Raises ConversionError if `out` holds anything."""
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise table.ConversionError(f'{out} exists already: choose a new folder')


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


def _source_dtype(found: tensors.Folder) -> str:
  """The widest dtype of the source: nothing is rounded."""
  kinds = set(found.dtypes.values())
  return kinds.pop() if len(kinds) == 1 else 'float32'


def _assets(
  source: pathlib.Path, values: Mapping, settings: Settings
) -> tuple[assets_lib.Assets, int]:
  """What the ids mean, and how many of them the source's tokenizer knows."""
  if (source / ASSETS).is_dir():
    assets = assets_lib.load(source / ASSETS)
    if settings.audio_codebook:
      raise table.ConversionError(f'{source} has audio tokens: leave out --audio_codebook')
    return assets, assets.vocabulary.size
  tokenizer = tokenizer_lib.load(source)
  known = tokenizer.size
  try:
    vocabulary = vocabulary_lib.Vocabulary.find(tokenizer, values.get(_START))
  except vocabulary_lib.VocabularyError as error:
    if not settings.audio_codebook:
      raise vocabulary_lib.VocabularyError(
        f'{source}: {error}; --audio_codebook=CODES extends a vocabulary of text'
      ) from error
    tokenizer = tokenizer.added(vocabulary_lib.TEXT_SPECIALS)
    vocabulary = vocabulary_lib.Vocabulary.extend(tokenizer, settings.audio_codebook)
  else:
    if settings.audio_codebook not in (None, vocabulary.codebook_size):
      raise table.ConversionError(
        f'{source} has {vocabulary.codebook_size} audio tokens: leave out --audio_codebook'
      )
  if settings.codec:
    codec = codec_lib.load_codec(settings.codec)
  else:
    codec = external.External(source.resolve().name, vocabulary.codebook_size)
  if codec.codebook_size != vocabulary.codebook_size:
    raise table.ConversionError(
      f'{settings.codec}: {codec.codebook_size} codes, but the vocabulary has '
      f'{vocabulary.codebook_size}'
    )
  return assets_lib.Assets(vocabulary, tokenizer, codec, dict(settings.prompts)), known


def _config(
  values: Mapping, defaults: config_lib.Config, model: config_lib.Model, name: str
) -> config_lib.Config:
  """All settings; an export of ours says how it masks and samples."""
  settings = defaults.to_dict() | {'model': dataclasses.asdict(model)}
  own = values.get(SECTION, {})
  try:
    for part in {'mask', 'sampling'} & set(own):
      settings[part] = {**settings[part], **own[part]}
    return config_lib.from_config_dict(settings)
  except (TypeError, config_lib.ConfigError) as error:
    raise table.ConversionError(f'{name}: {SECTION}: {error}') from error


def _write(out: pathlib.Path, config, assets: assets_lib.Assets, params) -> None:
  staging = out.with_name(out.name + '.partial')
  about = checkpoint.describe(config, assets.vocabulary.fingerprint)
  try:
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    checkpoint.claim(staging, about, assets)
    checkpoint.save_params(staging, params, about)
    if out.exists():
      out.rmdir()
    staging.rename(out)
  except OSError as error:
    raise table.ConversionError(f'cannot write to {out}: {error}') from error


def read_prompts(path: str | pathlib.Path) -> dict[str, list[str]]:
  """System prompts of tasks, from a JSON file: {task: [prompt, ...]}.

  Raises:
    ConversionError: it is something else.
  """
  try:
    prompts = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise table.ConversionError(f'{path}: no prompts of tasks ({error})') from error
  ok = isinstance(prompts, dict) and all(
    isinstance(known, list) and all(isinstance(text, str) for text in known)
    for known in prompts.values()
  )
  if not ok:
    raise table.ConversionError(f'{path}: must be {{task: [prompt, ...]}}')
  return prompts
