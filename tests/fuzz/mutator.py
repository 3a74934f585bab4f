"""Changes of bytes, drawn at random: what disks, networks and strangers do to a file."""

import random
import re
from collections.abc import Sequence

# What stands in the place of a value of JSON: other types, ends of ranges, broken letters.
VALUES = (
  *(b'null', b'true', b'0', b'-1', b'1e999', b'-1e999', b'NaN', b'1.5', b'1e-999', b'0x10'),
  *(b'""', b'"a"', b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'[]', b'{}', b'[[]]', b'{"a": 1}'),
  *(b'9223372036854775808', b'2147483648', b'999999999', b'1' + b'0' * 400, b'1' * 5000),
  *(b'"../../a"', b'"/"', b'[1, 2]', b'["a"]', b'{"": []}', b'"' + b'a' * 300 + b'"'),
)
# What no reader may trip over.
HOSTILE = (
  *(b'', b'\0', b'\n', b'\xff\xfe', b'\xef\xbb\xbf', b'PK\x03\x04', b'\x93NUMPY\x01\x00'),
  *(b'\x1f\x8b\x08\x00', b'[' * 100_000, b'{"a":' * 20_000, b'[{"a":' * 20_000, b'- ' * 2000),
  *VALUES,
)
_SCALAR = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
  """`data` with one change or a few; pieces of `others` may be in it."""
  for _ in range(rng.choice((1, 1, 2, 4))):
    data = rng.choice(_CHANGES)(data, others, rng)
  return data


def _place(data: bytes, rng: random.Random) -> tuple[int, int]:
  start = rng.randint(0, len(data))
  return start, min(len(data), start + rng.choice((1, 1, 4, 16, 64)))


def _flip(data, others, rng):
  start, end = _place(data, rng)
  changed = bytes(byte ^ 1 << rng.randrange(8) for byte in data[start:end])
  return data[:start] + changed + data[end:]


def _cut(data, others, rng):
  start, end = _place(data, rng)
  return data[:start] + data[end:]


def _end(data, others, rng):
  return data[: rng.randint(0, len(data))]


def _repeat(data, others, rng):
  start, end = _place(data, rng)
  return data[:start] + data[start:end] * rng.choice((2, 3, 50)) + data[end:]


def _splice(data, others, rng):
  other = rng.choice(others)
  (start, end), (first, last) = _place(data, rng), _place(other, rng)
  return data[:start] + other[first:last] + data[end:]


def _insert(data, others, rng):
  start, _ = _place(data, rng)
  return data[:start] + rng.choice(VALUES) + data[start:]


def _replace(data, others, rng):
  found = list(_SCALAR.finditer(data[:10_000]))
  if not found:
    return _flip(data, others, rng)
  chosen = rng.choice(found)
  return data[: chosen.start()] + rng.choice(VALUES) + data[chosen.end() :]


def _swap(data, others, rng):
  """One value of JSON in the place of another."""
  found = list(_SCALAR.finditer(data[:10_000]))
  if len(found) < 2:
    return _cut(data, others, rng)
  one, other = rng.sample(found, 2)
  return data[: one.start()] + other[0] + data[one.end() :]


_CHANGES = (_flip, _cut, _end, _repeat, _splice, _insert, _replace, _replace, _swap)
