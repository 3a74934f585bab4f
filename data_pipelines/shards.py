"""Shards: ArrayRecord files of examples, and TFDS's metadata of them, without TensorFlow.

Equal examples give equal bytes, whatever process writes them. TFDS's own serializer does not
(the order of its fields changes from process to process), so this module has one that sorts
them; TFDS reads both alike.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from ttt_jax import folders, json_file

VERSION = '1.0.0'
CONTENT = 'content.json'  # a hash of the records of each split; written last

FEATURES = {
  'tokens': tfds.features.Tensor(shape=(None,), dtype=np.int32),
  'targets': tfds.features.Tensor(shape=(None,), dtype=np.bool_),
  'spans': tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
  'key': tfds.features.Text(),
  'about': tfds.features.Text(),
}


class Shard(NamedTuple):
  """What is known of a file of records.

  Attributes:
    records: how many it holds.
    bytes: of these, before they were compressed.
    hash: of their content.
  """

  records: int
  bytes: int
  hash: str


class Writer:
  """Writes one shard, example by example."""

  def __init__(self, path: str | pathlib.Path):
    """Makes the file at `path`.

    Raises:
      FolderError: it cannot be made.
    """
    self._path, self._digest = str(path), hashlib.sha256()
    self._records = self._bytes = 0
    with folders.writing(self._path):
      open(self._path, 'xb').close()  # ArrayRecord tells only later that it cannot
    self._file = array_record_module.ArrayRecordWriter(self._path, 'group_size:1')

  def add(self, values: dict[str, np.ndarray | str]) -> None:
    """Writes one example, a value for each of `FEATURES`.

    Raises:
      FolderError: the disk is full, or the like.
    """
    content = serialize(values)
    self._digest.update(len(content).to_bytes(8, 'little') + content)
    self._records += 1
    self._bytes += len(content)
    with self._telling():
      self._file.write(content)

  def close(self) -> Shard:
    """Ends the file, which then lies on the disk and survives what may come.

    Raises:
      FolderError: the disk is full, or the like.
    """
    with self._telling():
      self._file.close()
    with folders.writing(self._path), open(self._path, 'rb') as file:
      os.fsync(file.fileno())
    return Shard(self._records, self._bytes, self._digest.hexdigest())

  @contextlib.contextmanager
  def _telling(self):
    try:
      yield
    except RuntimeError as error:  # the only kind that ArrayRecord knows
      raise folders.FolderError(f'cannot write to {self._path}: {error}') from error


def serialize(values: dict[str, np.ndarray | str]) -> bytes:
  """An example as TFDS reads it, its fields in the order of their names."""
  fields = {}
  for name in FEATURES:
    value = values[name]
    if isinstance(value, str):
      content = tf_feature_pb2.BytesList(value=[value.encode()])
      fields[name] = tf_feature_pb2.Feature(bytes_list=content)
    else:
      content = tf_feature_pb2.Int64List(value=value.astype(np.int64).reshape(-1).tolist())
      fields[name] = tf_feature_pb2.Feature(int64_list=content)
  example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
  return example.SerializeToString(deterministic=True)


def homes(folder: pathlib.Path, files: dict[str, Sequence[pathlib.Path]]):
  """Where the shards of each split belong in a data set: pairs of where from and where to."""
  return [
    (path, records_folder(folder) / _file_name(split, number, len(paths)))
    for split, paths in files.items()
    for number, path in enumerate(paths)
  ]


def records_folder(folder: pathlib.Path) -> pathlib.Path:
  """Where TFDS finds the records of a data set."""
  return folder / 'records' / VERSION


def finish(
  folder: pathlib.Path, splits: dict[str, Sequence[Shard]], metadata: dict[str, Any]
) -> None:
  """Makes a data set of the shards that lie where they belong.

  Args:
    folder: of the data set.
    splits: their shards in order, none of them empty.
    metadata: is kept beside the records, as JSON.
  """
  infos = [
    tfds.core.SplitInfo(
      name=name,
      shard_lengths=[shard.records for shard in made],
      num_bytes=sum(shard.bytes for shard in made),
    )
    for name, made in splits.items()
  ]
  tfds.folder_dataset.write_metadata(
    data_dir=str(records_folder(folder)),
    features=FEATURES,
    split_infos=infos,
    check_data=False,
    description='Interleaved text and audio, as token ids.',
    metadata=tfds.core.MetadataDict(metadata),
  )
  hashes = {
    name: hashlib.sha256(''.join(shard.hash for shard in made).encode()).hexdigest()
    for name, made in splits.items()
  }
  (folder / CONTENT).write_text(json.dumps(hashes, indent=1) + '\n')


def opened(folder: pathlib.Path) -> tfds.core.DatasetBuilder:
  """Opens a data set that `finish` made; TFDS would take classes and files of others, too.

  Raises:
    OSError, ValueError: a file of the metadata is missing or damaged, or names a class that is
      no feature of records, which TFDS would import, or a file of records that lies elsewhere.
    Whatever else TFDS raises of metadata that are damaged.
  """
  home = records_folder(folder)
  named = {
    name: json_file.read(home / name)
    for name in ('features.json', 'dataset_info.json', 'metadata.json')
  }
  known = _names(tfds.features.FeaturesDict(FEATURES).to_json())
  if foreign := _names(named['features.json']) - known:
    raise ValueError(
      f'{home}/features.json names {min(foreign)!r:.80}, which is no feature of records'
    )
  builder = tfds.builder_from_directory(str(home))
  for split, info in builder.info.splits.items():
    own = {_file_name(split, number, info.num_shards) for number in range(info.num_shards)}
    for path in map(pathlib.Path, info.filepaths):
      if path.parent != home or path.name not in own:
        raise ValueError(
          f'{home}/dataset_info.json names {str(path)!r:.200}, which is no file of split '
          f'{split!r:.80} of it'
        )
  return builder


def _names(value: Any) -> set[str]:
  """All texts of a JSON value that may name a class."""
  if isinstance(value, dict | list):
    inner = value.values() if isinstance(value, dict) else value
    return set().union(*map(_names, inner))
  return {value} if isinstance(value, str) and '.' in value else set()


def _file_name(split: str, number: int, count: int) -> str:
  return f'records-{split}.array_record-{number:05d}-of-{count:05d}'
