"""Data sets of records on disk: TFDS in ArrayRecord form, read and written without TensorFlow.

A record holds token ids, which of them are targets, and the audio spans. The data set's
metadata names the vocabulary and the codec that made the ids; whoever opens it with others
is refused. Beside the records lie the files of both, so that a data set is whole by itself.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import access, cache, shards
from ttt_jax import assets as assets_lib
from ttt_jax import chat, errors, folders, json_file
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import two_stream

# What is raised of all data, here and above.
DataError = access.DataError


class Record(NamedTuple):
  """One example, as a data set keeps it.

  Attributes:
    key: unique in its split.
    document: tokens, targets and spans.
    about: what evaluation wants to know, as plain JSON values (the task, the reference).
  """

  key: str
  document: chat.Document
  about: dict[str, Any]


Examples = Callable[[], Iterator[Record]]


def check_record(record: Record, vocabulary: vocabulary_lib.Vocabulary) -> None:
  """Raises DataError, naming the record, if it is not sound."""
  tokens, targets, spans = record.document
  try:
    vocabulary.check(tokens, f'record {record.key!r}')
  except vocabulary_lib.VocabularyError as error:
    raise DataError(str(error)) from error
  if len(tokens) == 0 or targets.shape != tokens.shape:
    raise DataError(f'record {record.key!r}: needs tokens, and one target flag for each')
  if not targets[1:].any():
    raise DataError(f'record {record.key!r}: has no target, so there is nothing to learn')
  if not np.array_equal(spans.reshape(-1, 2), vocabulary.spans(tokens)):
    raise DataError(f'record {record.key!r}: its spans are not its runs of audio tokens')


def values(record: Record) -> dict[str, np.ndarray | str]:
  """A record as a shard holds it."""
  about = json.dumps(record.about)
  return {**record.document._asdict(), 'key': record.key, 'about': about}


def write(
  directory: str | pathlib.Path,
  splits: dict[str, Examples],
  assets: assets_lib.Assets,
  extras: Callable[[pathlib.Path], None] = lambda folder: None,
  shard_records: int = 20_000,
) -> None:
  """Writes a data set into `directory`, whole or not at all.

  Args:
    directory: its folder; a data set that was there is replaced.
    splits: for each split, makes its records; their order is kept.
    assets: what the records' ids mean.
    extras: is given the folder and writes more files into it.
    shard_records: how many records share a file.

  Raises:
    DataError: a record is not sound, two have one key, or a split has none.
    FolderError: the directory holds something that is no data set, or cannot be written.
  """
  with folders.new(directory, replaces=shards.CONTENT) as staging:
    shards.records_folder(staging).mkdir(parents=True)
    made, files = {}, {}
    for split, make in splits.items():
      examples = _checked(make(), assets.vocabulary)
      made[split], files[split] = [], []
      while first := next(examples, None):
        path = staging / f'{split}-{len(made[split])}'
        writer = shards.Writer(path)
        for record in itertools.chain([first], itertools.islice(examples, shard_records - 1)):
          writer.add(values(record))
        made[split].append(writer.close())
        files[split].append(path)
      if not made[split]:
        raise DataError(f'{directory}: split {split!r} has no records')
    for path, home in shards.homes(staging, files):
      path.rename(home)
    assets.save(staging / assets_lib.DIRECTORY)
    extras(staging)
    shards.finish(staging, made, assets.fingerprints)


def _checked(
  examples: Iterable[Record], vocabulary: vocabulary_lib.Vocabulary
) -> Iterator[Record]:
  """The records, if they are sound and have keys of their own."""
  keys = set()
  for record in examples:
    check_record(record, vocabulary)
    if record.key in keys:
      raise DataError(f'record {record.key!r}: another one has the same key')
    keys.add(record.key)
    yield record


class Source:
  """One split of a data set: random access to records, and what planning needs of them."""

  def __init__(self, directory: str | pathlib.Path, split: str, cache: str = ''):
    """Opens `split` of the data set in `directory`.

    Args:
      directory: of the data set.
      split: its name.
      cache: folder for what is computed of records; by default `cache` in `directory`.

    Raises:
      DataError: there is no such data set or split, or a file of it is damaged.
      AssetError: its ids were made by another vocabulary or codec than lies beside it.
    """
    self.directory, self.split = pathlib.Path(directory), split
    self.cache = pathlib.Path(cache or self.directory / 'cache')
    if not (self.directory / shards.CONTENT).exists():
      raise DataError(f'{self.directory}: no data set of records here')
    self.assets = assets_lib.load(self.directory / assets_lib.DIRECTORY)
    try:
      self._open()
    except errors.UserError:
      raise
    except Exception as error:  # each library below raises errors of its own
      raise DataError(
        f'{self.directory}: the data set cannot be opened ({error}): make it again'
      ) from error

  def _open(self) -> None:
    builder = shards.opened(self.directory)
    if self.split not in builder.info.splits:
      known = ', '.join(builder.info.splits)
      raise DataError(f'{self.directory}: no split {self.split!r} (there are: {known})')
    self.fingerprints = dict(builder.info.metadata)
    self.assets.refuse_mismatch(self.fingerprints, str(self.directory))
    self.documents = access.Documents(self.directory, builder, self.split)

  def __len__(self) -> int:
    return len(self.documents)

  def __getitem__(self, index: int) -> Record:
    """Record `index`; raises DataError, naming it, if it cannot be read."""
    document, key, about = self.documents.whole(index)
    with access.naming(self.directory, self.split, index):
      return Record(key.decode(), document, json.loads(about))

  @functools.cached_property
  def fingerprint(self) -> str:
    """Names the content: equal for equal records.

    Raises:
      DataError: the file that has it is damaged.
    """
    path = self.directory / shards.CONTENT
    try:
      found = json_file.read(path)[self.split]
    except (OSError, ValueError, KeyError, TypeError) as error:
      found = error
    if not found or not isinstance(found, str):
      raise DataError(
        f'{path}: has no hash of split {self.split!r} ({found!r:.80}): make the data set again'
      )
    return found

  @functools.cached_property
  def shapes(self) -> 'Shapes':
    """Lengths and last response spans of all records; cached."""

    def fits(arrays: cache.Arrays) -> bool:
      return arrays.keys() == set(Shapes._fields) and all(
        array.shape == (len(self),) and array.dtype == np.int64 for array in arrays.values()
      )

    depends = [self.fingerprint]
    arrays = cache.cached(
      self.cache, 'shapes', depends, lambda: self._measure()._asdict(), fits
    )
    return Shapes(**arrays)

  def copied(self, block: int | None) -> np.ndarray:
    """int64 [R, 2]: tokens of a noisy copy of all response spans, and of the last of them.

    Args:
      block: tokens of a noisy group, None for whole spans (`Mask.group_size`).
    """

    def measure():
      pairs = []
      for index in range(len(self)):
        with access.naming(self.directory, self.split, index):
          document = self.documents[index]
          pairs.append(two_stream.copied_lengths(document, block, self.assets.vocabulary))
      return {'copied': np.array(pairs, np.int64).reshape(-1, 2)}

    def fits(arrays: cache.Arrays) -> bool:
      pairs = arrays.get('copied', np.empty(0))
      return pairs.shape == (len(self), 2) and pairs.dtype == np.int64

    depends = [self.fingerprint, block]
    return cache.cached(self.cache, 'copied', depends, measure, fits)['copied']

  def _measure(self) -> 'Shapes':
    rows = []
    for index in range(len(self)):
      document = self.documents[index]
      with access.naming(self.directory, self.split, index):
        responses = document.spans[document.responses]
        start, end = responses[-1] if len(responses) else (0, 0)
        rows.append((len(document.tokens), start, max(0, end - start - 1)))
    return Shapes(*np.array(rows, np.int64).reshape(-1, 3).T)


class Shapes(NamedTuple):
  """int64 [R] each: all that planning knows of the records of a split.

  Attributes:
    lengths: tokens of the record.
    last_start: where its last response span begins.
    last_codes: tokens of that span without its end; 0 if there is none.
  """

  lengths: np.ndarray
  last_start: np.ndarray
  last_codes: np.ndarray
