"""Quick random access to the records of a data set.

TFDS decodes every feature of a record; here only those that are asked for are, from the same
bytes, which takes half the time for documents. And TFDS takes a record that lacks a feature.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from ttt_jax import chat, errors


class DataError(errors.UserError):
  """A data set or a record in it cannot be used."""


class Documents:
  """The documents of one split; can be pickled, and then opens its files anew."""

  def __init__(self, directory: pathlib.Path, builder: tfds.core.DatasetBuilder, split: str):
    """Opens `split` of the data set of records in `directory`."""
    self._directory, self._split = directory, split
    self._bytes = builder.as_data_source(split).data_source

  def __len__(self) -> int:
    return len(self._bytes)

  def __getitem__(self, index: int) -> chat.Document:
    """Document `index`; raises DataError, naming it, if it cannot be read."""
    if index >= len(self):
      raise IndexError(index)
    with naming(self._directory, self._split, index):
      return _document(self._features(index))

  def whole(self, index: int) -> tuple[chat.Document, bytes, bytes]:
    """Document `index`, its key and what is said about it; raises as indexing does."""
    if index >= len(self):
      raise IndexError(index)
    with naming(self._directory, self._split, index):
      features = self._features(index)
      return _document(features), _text(features, 'key'), _text(features, 'about')

  def _features(self, index: int):
    return tf_example_pb2.Example.FromString(self._bytes[int(index)]).features.feature


def _document(features) -> chat.Document:
  """The arrays of a record; raises ValueError if they are no document at all."""

  def array(name: str, dtype: type) -> np.ndarray:
    return np.array(features[name].int64_list.value, dtype)

  tokens, targets = array('tokens', np.int32), array('targets', np.bool_)
  if not len(tokens) or len(targets) != len(tokens):
    raise ValueError(f'it has {len(tokens)} tokens and {len(targets)} target flags')
  return chat.Document(tokens, targets, array('spans', np.int32).reshape(-1, 2))


def _text(features, name: str) -> bytes:
  (text,) = features[name].bytes_list.value or [None]
  if text is None:
    raise ValueError(f'it has no {name}')
  return text


@contextlib.contextmanager
def naming(directory: pathlib.Path, split: str, index: int) -> Iterator[None]:
  """Names the record where one cannot be read, whatever the libraries below say to it.

  Raises:
    DataError: instead of any other error.
  """
  try:
    yield
  except errors.UserError:
    raise
  except Exception as error:
    raise DataError(
      f'{directory}: record {index} of split {split!r} cannot be read ({error}): make the '
      'data set again'
    ) from error
