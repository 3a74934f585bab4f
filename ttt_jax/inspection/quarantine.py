"""What was rejected when a data set was made: DATA/quarantine.jsonl, one rejection a line."""

import collections
import json
import pathlib
from typing import Any

from ttt_jax import errors

FILE = 'quarantine.jsonl'

_LINE = 1 << 20  # bytes of a line that are read
_REASONS = 1000  # that are counted each for itself
_EXAMPLES = 3  # of a reason
_SHOWN = 300  # characters of a text that are kept
_OTHERS = 'other reasons'
_DAMAGED = 'lines of this file that cannot be read'


def read(data: str | pathlib.Path) -> dict[str, Any] | None:
  """Counts rejections.

  Returns:
    `rejected`, and `reasons`, the most frequent first, each with its `count` and its first
    `examples` of file, line and excerpt; None if the data set has no such file.

  Raises:
    UserError: there is one, and it cannot be read.
  """
  path = pathlib.Path(data, FILE)
  counts, examples = collections.Counter(), collections.defaultdict(list)
  try:
    if not path.exists():
      return None
    with path.open('rb') as file:
      number = 0
      while line := file.readline(_LINE):
        number += 1
        whole = line.endswith(b'\n') or len(line) < _LINE
        while not whole:  # the rest of an endless line
          rest = file.readline(_LINE)
          whole = rest.endswith(b'\n') or len(rest) < _LINE
        reason, example = _rejection(line, number)
        if reason not in counts and len(counts) >= _REASONS:
          reason = _OTHERS
        counts[reason] += 1
        if len(examples[reason]) < _EXAMPLES:
          examples[reason].append(example)
  except OSError as error:
    raise errors.UserError(f'{path}: cannot be read ({error})') from error
  return {
    'rejected': counts.total(),
    'reasons': [
      {'reason': reason, 'count': count, 'examples': examples[reason]}
      for reason, count in counts.most_common()
    ],
  }


def _rejection(line: bytes, number: int) -> tuple[str, dict[str, str]]:
  """The reason, and an example of it."""
  try:
    content = json.loads(line)
    shown = {name: str(content[name])[:_SHOWN] for name in ('file', 'line', 'reason')}
    shown['excerpt'] = str(content.get('excerpt', ''))[:_SHOWN]
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    excerpt = line[:_SHOWN].decode('utf-8', 'replace')
    return _DAMAGED, {'file': FILE, 'line': str(number), 'excerpt': excerpt}
  return shown.pop('reason'), shown
