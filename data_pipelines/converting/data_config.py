"""The authors' list of what to train on.

    [{"path": "asr/*.json", "sample_ratio": 0.5, "data_type": "IT", "task": "transcribe"}, ...]

`task` is ours and may be left out, as may all but the path.
"""

import codecs
import pathlib
from typing import Any

from data_pipelines import records
from data_pipelines.reading import sources
from ttt_jax import errors, json_file, plain_file

_MOST = 10_000  # times that a record is taken: more is a slip of the pen
_KEYS = ('path', 'sample_ratio', 'data_type', 'task')


def read_data_config(
  path: str | pathlib.Path, root: str | pathlib.Path | None = None
) -> list[sources.Source]:
  """The sources that a data config lists.

  Args:
    path: of the config, a JSON list of objects.
    root: what its paths are relative to and may not leave; by default its folder.

  Raises:
    DataError: it cannot be read, or an entry has an unknown key or a value of another kind.
  """
  path = pathlib.Path(path)
  root = str(path.parent if root is None else root)
  try:
    entries = json_file.parse(plain_file.read(path).removeprefix(codecs.BOM_UTF8))
  except (OSError, ValueError) as error:
    raise records.DataError(f'{path}: no data config ({error})') from error
  if not isinstance(entries, list) or not entries:
    raise records.DataError(f'{path}: a data config is a JSON list with an object a source')
  out = []
  for number, entry in enumerate(entries, 1):
    try:
      out.append(_source(entry, root))
    except ValueError as error:
      raise records.DataError(f'{path}: entry {number}: {error}') from error
  return out


def _source(entry: Any, root: str) -> sources.Source:
  if not isinstance(entry, dict):
    raise ValueError(f'must be an object, not {entry!r:.80}')
  for key in entry:
    if key not in _KEYS:
      raise ValueError(f'no such key: {key!r:.80}{errors.nearest(key, list(_KEYS))}')
  path, ratio = entry.get('path'), entry.get('sample_ratio', 1)
  if not isinstance(path, str) or not path:
    raise ValueError(f'"path" must be a text, not {path!r:.80}')
  number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
  if not number or not 0 <= ratio <= _MOST:
    raise ValueError(f'"sample_ratio" must be a number from 0 to {_MOST}, not {ratio!r:.80}')
  data_type, task = entry.get('data_type', ''), entry.get('task', '')
  if data_type not in ('', 'IT', 'PT'):
    raise ValueError(f'"data_type" must be "IT" (turns) or "PT" (text), not {data_type!r:.80}')
  return sources.Source(path, float(ratio), data_type, sources.check_task(task), root)
