"""A target: one reader of the project, made ready to be fed any bytes."""

import contextlib
import pathlib
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ttt_jax import errors

SECONDS = 30  # after which a reader hangs
ROOM = 2**31  # bytes that a reader may take beside what the process has


class Target(NamedTuple):
  """One reader.

  Attributes:
    seeds: small inputs, most of them valid.
    read: gives bytes to the reader, and uses what it makes of them.
    refusals: what it may raise.
  """

  seeds: Sequence[bytes]
  read: Callable[[bytes], Any]
  refusals: tuple[type[Exception], ...] = (errors.UserError,)


Make = Callable[[pathlib.Path], Target]


def of_file(path: pathlib.Path, read: Callable[[], Any], *more: bytes, **changes) -> Target:
  """A reader of a file that lies where its writer put it, which is the first seed.

  Args:
    path: of the file.
    read: reads it.
    *more: other seeds.
    **changes: of the target.
  """

  def of_bytes(data: bytes) -> None:
    path.write_bytes(data)
    read()

  return Target([path.read_bytes(), *more], of_bytes, **changes)


def feed(target: Target, data: bytes) -> bool:
  """Gives bytes to a reader; whether it took them.

  Raises:
    Whatever it raised and may not.
  """
  try:
    target.read(data)
  except target.refusals:
    return False
  return True


class HangError(BaseException):
  """A reader does not come to an end. It is none that a reader could catch."""


@contextlib.contextmanager
def within_room() -> Iterator[None]:
  """What wants more than `ROOM` gets a MemoryError, where Linux can tell how much that is."""
  pages = pathlib.Path('/proc/self/statm')
  soft, hard = resource.getrlimit(resource.RLIMIT_AS)
  if pages.exists():
    held = int(pages.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + ROOM, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def within_time() -> Iterator[None]:
  """What takes longer than `SECONDS` gets a HangError; in the main thread alone."""
  before = signal.signal(signal.SIGALRM, _hang)
  signal.alarm(SECONDS)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _hang(*_) -> None:
  raise HangError
