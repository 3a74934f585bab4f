"""From what was read to records: the authors' form and manifests of raw audio."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import records
from data_pipelines.converting import authors, clips, data_config, manifest
from data_pipelines.items import Item, Rejected
from data_pipelines.reading import sources
from data_pipelines.reading.confined import inside
from data_pipelines.reading.found import EXCERPT
from ttt_jax import assets as assets_lib
from ttt_jax import chat, errors
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.codecs import external, kinds

_PENDING = 256  # items that wait for their audio at most
# Tasks of which the record tells what is right, and whose words that is.
_REFERENCE = dict.fromkeys(('transcribe', 'answer', 'caption', 'classify'), 'assistant')
_REFERENCE['speak'] = 'user'


class _Draft(NamedTuple):
  """An item that waits for the codes of its audio."""

  item: Item
  entry: manifest.Entry
  waves: list[tuple[np.ndarray, int]]


@dataclasses.dataclass(frozen=True)
class Conversion:
  """Makes records of items; a `Convert` that can be sent to other processes.

  Attributes:
    assets: folder of the vocabulary, tokenizer and codec, which each process loads once.
    audio_root: the folder that audio files are looked for in and must lie below; '' is that
      of the file which names them.
    max_seconds: how much audio one record may have.
    batch_seconds: how much audio the codec is given at once, or a record more.
    codec: folder of the codec that is to encode; '' is that of the assets. Where that only
      stands for one that lives elsewhere, this is the one.
  """

  assets: str
  audio_root: str = ''
  max_seconds: float = 600.0
  batch_seconds: float = 600.0
  codec: str = ''

  def __call__(self, items: Iterable[Item | Rejected]) -> Iterator[records.Record | Rejected]:
    """Records of items, or why there are none, in their order."""
    assets, pending, seconds = load(self.assets, self.codec), [], 0.0
    for item in items:
      pending.append(self._begun(item, assets))
      if isinstance(pending[-1], _Draft):
        seconds += sum(len(wave) / rate for wave, rate in pending[-1].waves)
      if not seconds or seconds >= self.batch_seconds or len(pending) >= _PENDING:
        yield from _finished(pending, assets)
        pending, seconds = [], 0.0
    yield from _finished(pending, assets)

  def _begun(
    self, item: Item | Rejected, assets: assets_lib.Assets
  ) -> records.Record | Rejected | _Draft:
    if isinstance(item, Rejected):
      return item
    try:
      if 'turns' not in item.content and 'parts' not in item.content:
        document = authors.compose(item.content, assets.template)
        return _record(item, document, {}, authors.texts(item.content), assets)
      entry = manifest.parse(item.content)
      return _Draft(item, entry, self._waves(entry, item))
    except ValueError as error:
      return _rejected(item, error)
    except Exception as error:
      error.add_note(f'It happened at {item.place}.')
      raise

  def _waves(self, entry: manifest.Entry, item: Item) -> list[tuple[np.ndarray, int]]:
    """The audio of an entry: samples, and how many there are a second."""
    root = self.audio_root or pathlib.Path(item.place.path).parent
    waves, left = [], self.max_seconds
    for audio in entry.audio:
      clip = clips.Clip(inside(root, audio.file), audio.start, audio.end)
      try:
        wave, rate = clips.read(clip, left)
      except errors.UserError as error:
        raise records.DataError(f'{audio.file}: {error}') from error
      waves.append((wave, rate))
      left -= len(wave) / rate
    return waves


def plan(paths: Sequence[str], configs: Sequence[str], piece_bytes: int) -> list[sources.Piece]:
  """What to read, from what a command line says.

  Args:
    paths: files, folders or patterns; each may begin with the task of its records and `=`,
      as in `transcribe=asr/*.json`.
    configs: data configs in the authors' form.
    piece_bytes: of `sources.pieces`.

  Raises:
    DataError: there is nothing to read, or something that cannot be.
  """
  listed = [_named(path) for path in paths]
  for config in configs:
    listed += data_config.read_data_config(config)
  if not listed:
    raise records.DataError('nothing to read: name files, folders, patterns or a data config')
  return sources.pieces(listed, piece_bytes)


def _named(path: str) -> sources.Source:
  task, equals, rest = path.partition('=')
  if equals and task in sources.TASKS:
    return sources.Source(rest, task=task)
  return sources.Source(path)


@functools.lru_cache(maxsize=1)
def load(folder: str, codec: str = '') -> assets_lib.Assets:
  """The assets in `folder`; with the codec in the folder `codec`, if one is named.

  Raises:
    AssetError, VocabularyError, CodecError: a file is missing or damaged, or the codec is
      another than that of the assets.
  """
  assets = assets_lib.load(folder)
  if not codec:
    return assets
  mine, other = assets.codec, kinds.load_codec(codec)
  stands_in = mine.kind == external.External.kind and mine.codebook_size == other.codebook_size
  if mine.fingerprint != other.fingerprint and not stands_in:
    raise assets_lib.AssetError(
      f'{codec} is a codec of kind {other.kind!r} with {other.codebook_size} codes, but the '
      f'ids in {folder} are of another, of kind {mine.kind!r} with {mine.codebook_size}: use '
      'that one'
    )
  return assets._replace(codec=other)


def _finished(
  pending: Sequence[records.Record | Rejected | _Draft], assets: assets_lib.Assets
) -> Iterator[records.Record | Rejected]:
  """Gives the drafts the codes of their audio, all of it encoded together."""
  drafts = [each for each in pending if isinstance(each, _Draft)]
  codes = iter(_encode([wave for draft in drafts for wave in draft.waves], assets.codec))
  for each in pending:
    if isinstance(each, _Draft):
      yield _record_of(each, [next(codes) for _ in each.waves], assets)
    else:
      yield each


def _record_of(
  draft: _Draft, codes: list[np.ndarray | ValueError], assets: assets_lib.Assets
) -> records.Record | Rejected:
  item, entry = draft.item, draft.entry
  try:
    for audio, tokens in zip(entry.audio, codes):
      if isinstance(tokens, ValueError):
        raise records.DataError(f'{audio.file}: {tokens}') from tokens
      if not len(tokens):
        raise records.DataError(f'{audio.file}: is too short for a single token')
    frame_rate = assets.codec.frame_rate if codes else 1.0
    document = manifest.document(entry, codes, assets.template, frame_rate)
    about = {**entry.about, **({'task': entry.task} if entry.task else {})}
    return _record(item, document, about, entry.texts, assets)
  except ValueError as error:
    return _rejected(item, error)
  except Exception as error:
    error.add_note(f'It happened at {item.place}.')
    raise


def _encode(
  waves: list[tuple[np.ndarray, int]], codec: codec_lib.Codec
) -> list[np.ndarray | ValueError]:
  """Codes of each sound, or why it has none."""
  if not waves:
    return []
  codec.require('encode')
  try:
    return codec.encode_batch(*zip(*waves))
  except errors.UserError:  # of one of them: find it
    return [_encoded(wave, codec) for wave in waves]


def _encoded(wave: tuple[np.ndarray, int], codec: codec_lib.Codec) -> np.ndarray | ValueError:
  try:
    return codec.encode(*wave)
  except errors.UserError as error:
    return error


def _record(
  item: Item,
  document: chat.Document,
  about: dict[str, Any],
  texts: list[tuple[str, str]],
  assets: assets_lib.Assets,
) -> records.Record:
  """A record that was checked, with what evaluation needs to know of it."""
  about = {**item.about, **about}
  answers = [text for role, text in texts if role == 'assistant']
  whose = _REFERENCE.get(about.get('task'))
  said = [text for role, text in texts if role == whose]
  if len(answers) == len(said) == 1 and said[0].strip() and 'text' not in about:
    about['text'] = said[0].strip()
  record = records.Record(item.key, document, about)
  records.check_record(record, assets.vocabulary)
  return record


def _rejected(item: Item, error: ValueError) -> Rejected:
  return Rejected(item.place, str(error), repr(item.content)[:EXCERPT])
