"""The figures of a data set as plain JSON values: for programs, and for what people see."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ttt_jax import errors
from ttt_jax.inspection import statistics as statistics_lib

_BARS = 24  # of a histogram
_CODES = 10  # most frequent, and least frequent
_GROUPS, _COPIES = 10, 5  # of equal records that are named
ROW_LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)


def figures(
  found: statistics_lib.Statistics,
  frame_rate: float | None,
  row_length: int,
  key: Callable[[int], str],
) -> dict[str, Any]:
  """All figures.

  Args:
    found: what the records hold.
    frame_rate: of the codec in tokens a second; None if it does not tell.
    row_length: of training.
    key: of a record by its number in the split.
  """
  lengths = found.lengths['records']
  return {
    'frame_rate': frame_rate,
    'total': _counts(found.total, frame_rate),
    'tasks': {
      name: _counts(counts, frame_rate)
      for name, counts in sorted(found.tasks.items(), key=lambda item: (-item[1].records, item))
    },
    'scripts': {
      name: letters._asdict()
      for name, letters in sorted(found.written.items(), key=lambda item: -item[1].letters)
    },
    'lengths': {name: distribution(found.lengths[name]) for name in statistics_lib.LENGTHS},
    'longest': _extremes(found.longest),
    'shortest': _extremes(found.shortest),
    'row_length': row_length,
    'too_long': _above(lengths, row_length),
    'too_long_for': {str(length): _above(lengths, length) for length in ROW_LENGTHS},
    'codes': codes(found.codes),
    'duplicates': duplicates(found.hashes, key),
    'unsound': {
      'records': found.unsound,
      'first': [{'key': key, 'reason': reason} for _, key, reason in found.complaints],
    },
  }


def frame_rate(codec) -> float | None:
  """Tokens a second; None where a codec is not here to tell."""
  try:
    return float(codec.frame_rate)
  except errors.UserError:
    return None


def _counts(counts: statistics_lib.Counts, rate: float | None) -> dict[str, Any]:
  out = counts._asdict()
  for kind in ('prompt', 'response'):
    frames = out[f'{kind}_frames']
    out[f'{kind}_hours'] = frames / rate / 3600 if rate else None
  return out


def _extremes(sizes) -> list[dict[str, Any]]:
  return [{'key': key, 'tokens': length} for length, key in sizes]


def _above(lengths: Mapping[int, int], limit: int) -> int:
  return sum(count for length, count in lengths.items() if length > limit)


def distribution(lengths: Mapping[int, int]) -> dict[str, Any] | None:
  """What a histogram of lengths says; None if there are none.

  Args:
    lengths: how many have which length.

  Returns:
    count, least, mean, median, p90, p99, most; and `bins`, each from, to (inclusive) and
    count, of equal width but for the last one, which takes a long tail together.
  """
  if not lengths:
    return None
  sizes = np.array(sorted(lengths))
  counts = np.array([lengths[size] for size in sizes.tolist()])
  below = np.cumsum(counts)
  count = int(below[-1])

  def quantile(mille: int) -> int:
    """The least length that so many of a thousand do not exceed."""
    return int(sizes[np.searchsorted(1000 * below, mille * count)])

  width = _width(quantile(995) + 1 - int(sizes[0]))
  start = int(sizes[0]) // width * width
  place = np.minimum((sizes - start) // width, _BARS)
  bars = np.bincount(place, counts).astype(int).tolist()
  bins = [[start + i * width, start + (i + 1) * width - 1, n] for i, n in enumerate(bars)]
  bins[-1][1] = max(bins[-1][1], int(sizes[-1]))
  return {
    'count': count,
    'least': int(sizes[0]),
    'mean': float(np.average(sizes, weights=counts)),
    'median': quantile(500),
    'p90': quantile(900),
    'p99': quantile(990),
    'most': int(sizes[-1]),
    'bins': bins,
  }


def _width(spread: int) -> int:
  """Of bins: the least of 1, 2, 5, 10, ... of which `_BARS` cover the spread and more."""
  power = 1
  while True:
    for step in (1, 2, 5):
      if step * power * (_BARS - 1) >= spread:
        return step * power
    power *= 10


def codes(counts: np.ndarray) -> dict[str, Any]:
  """How the codebook is used.

  Args:
    counts: int [codes], how often each occurs.
  """
  order = np.argsort(-counts, kind='stable')
  used = order[counts[order] > 0]
  share = counts[used] / max(1, counts.sum())
  entropy = float(-(share * np.log2(share)).sum()) if len(used) else 0.0
  return {
    'size': len(counts),
    'used': len(used),
    'occurrences': int(counts.sum()),
    'entropy_bits': entropy,
    'perplexity': 2.0**entropy if len(used) else 0.0,
    'most': _ranked(counts, used[:_CODES]),
    'least': _ranked(counts, used[::-1][:_CODES]),
    'sorted': counts[used].tolist(),
  }


def _ranked(counts: np.ndarray, chosen: np.ndarray) -> list[dict[str, int]]:
  return [{'code': int(code), 'count': int(counts[code])} for code in chosen]


def duplicates(hashes: statistics_lib.Hashes, key: Callable[[int], str]) -> dict[str, Any]:
  """Records that are equal, token by token; and those of equal text with other audio.

  Args:
    hashes: of the records.
    key: of a record by its number.
  """
  order = np.lexsort((hashes.numbers, hashes.documents))
  starts, sizes = _runs(hashes.documents[order])
  starts, sizes = starts[sizes > 1], sizes[sizes > 1]
  largest = np.lexsort((hashes.numbers[order][starts], -sizes))[:_GROUPS]
  named = [order[starts[i] :][: min(sizes[i], _COPIES)] for i in largest]
  several = _readings(hashes)
  return {
    'groups': len(sizes),
    'records': int(sizes.sum()),
    'surplus': int((sizes - 1).sum()),
    'largest': [
      {'copies': int(sizes[i]), 'keys': [key(int(number)) for number in hashes.numbers[group]]}
      for i, group in zip(largest, named)
    ],
    'texts_of_several_readings': len(several),
    'readings_of_those': int(several.sum()),
  }


def _readings(hashes: statistics_lib.Hashes) -> np.ndarray:
  """For each text that is there with several audios, with how many."""
  spoken = hashes.texts != 0
  texts, documents = hashes.texts[spoken], hashes.documents[spoken]
  order = np.lexsort((documents, texts))
  different, _ = _runs(texts[order], documents[order])
  _, readings = _runs(texts[order][different])
  return readings[readings > 1]


def _runs(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where runs of lines begin that are equal in all columns, and how long they are."""
  size = len(columns[0])
  changes = sum((column[1:] != column[:-1] for column in columns), np.zeros(max(0, size - 1)))
  starts = np.flatnonzero(np.r_[np.ones(min(1, size)), changes])
  return starts, np.diff(np.r_[starts, size])
