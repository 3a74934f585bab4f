"""Parquet: a row is a record, and its columns are the keys of the records' forms."""

import pathlib
from collections.abc import Iterator
from typing import Any

from data_pipelines import records
from data_pipelines.reading.found import EXCERPT, Cut, Found
from ttt_jax import json_file

# What a record may have; other columns are not read.
COLUMNS = ('messages', 'conversations', 'prompt', 'response', 'text', 'turns', 'parts')
COLUMNS += ('interleave', 'task', 'about')
_ROWS = 256  # that are in memory together
_DENSEST = 100  # rows a byte of a file; who says that there are more has fewer


def cut(path: pathlib.Path, size: int) -> Iterator[Cut]:
  """Parts of row groups that hold `size` bytes, unpacked, or a group more.

  Raises:
    DataError: the file is no whole parquet file, or pyarrow is not installed.
  """
  metadata = _open(path).metadata
  start = bytes_ = rows = 0
  row = 1
  for group in range(metadata.num_row_groups):
    bytes_ += metadata.row_group(group).total_byte_size
    rows += metadata.row_group(group).num_rows
    if bytes_ >= size or group + 1 == metadata.num_row_groups:
      yield Cut(start, group + 1, row, row)
      start, row, bytes_, rows = group + 1, row + rows, 0, 0


def read(path: pathlib.Path, part: Cut, limit: int) -> Iterator[Found]:
  """The rows of one part; those of a damaged group are rejected one by one.

  Raises:
    DataError: the file is no whole parquet file, or pyarrow is not installed.
  """
  file, row = _open(path), part.number
  columns = [name for name in file.schema_arrow.names if name in COLUMNS]
  for group in range(part.start, part.end):
    behind = row + file.metadata.row_group(group).num_rows
    try:
      for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
        for index in range(len(batch)):
          yield _row(row, batch.slice(index, 1), limit)
          row += 1
    except Exception as error:  # pyarrow has many kinds, of damage too
      for number in range(row, behind):
        yield Found(number, number, None, f'its group of rows is damaged: {_line(error)}')
    row = behind


def _row(number: int, row: Any, limit: int) -> Found:
  """One row of a record batch."""
  if row.nbytes > limit:
    reason = f'the row is {row.nbytes} bytes long; a record may have {limit}'
    return Found(number, number, None, reason)
  try:
    (content,) = row.to_pylist()
    return Found(number, number, _present(content))
  except Exception as error:  # as above, and UnicodeDecodeError
    return Found(number, number, None, f'cannot be read: {_line(error)}', repr(row)[:EXCERPT])


def _present(value: Any, depth: int = json_file.DEPTH) -> Any:
  """A value without fields that are null: a table gives every struct all fields of its type.

  Raises:
    ValueError: it nests deeper than a value of JSON may.
  """
  if not isinstance(value, dict | list):
    return value
  if not depth:
    raise ValueError('is nested too deeply')
  if isinstance(value, list):
    return [_present(each, depth - 1) for each in value]
  return {key: _present(v, depth - 1) for key, v in value.items() if v is not None}


def _open(path: pathlib.Path) -> Any:
  try:
    from pyarrow import parquet
  except ImportError as error:
    raise records.DataError(
      f"{path}: to read parquet, pyarrow is needed: pip install 'ttt_jax[parquet]'"
    ) from error
  try:
    file, size = parquet.ParquetFile(path), path.stat().st_size
    groups = range(file.metadata.num_row_groups)
    rows = [file.metadata.row_group(group).num_rows for group in groups]
    if min(rows, default=0) < 0 or sum(rows) > _DENSEST * size:
      raise ValueError(f'it says that it has {sum(rows)} rows in {size} bytes')
    return file
  except Exception as error:  # as above
    raise records.DataError(
      f'{path}: no whole parquet file ({_line(error)}): copy or make it again'
    ) from error


def _line(error: Exception) -> str:
  return str(error).splitlines()[0][:EXCERPT] if str(error) else type(error).__name__
