"""Folders that come into being whole, or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator

from absl import logging

from ttt_jax import errors


class FolderError(errors.UserError):
  """A folder is in use, or cannot be written."""


@contextlib.contextmanager
def new(out: str | pathlib.Path, replaces: str | None = None) -> Iterator[pathlib.Path]:
  """Gives a folder beside `out` to write into, which becomes `out` if all goes well.

  Args:
    out: where it is to be; there is nothing yet, or an empty folder.
    replaces: the name of a file; a folder that has one is of the same kind, and is replaced.

  Raises:
    FolderError: `out` holds something else, or cannot be written.
  """
  out = pathlib.Path(out).absolute()
  with writing(out):
    refuse_used(out, replaces)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = pathlib.Path(tempfile.mkdtemp(prefix=f'{out.name}.partial.', dir=out.parent))
    try:
      staging.chmod(0o755)  # mkdtemp makes it for its owner alone
      yield staging
      become(staging, out, replaces)
    finally:
      shutil.rmtree(staging, ignore_errors=True)


def refuse_used(out: pathlib.Path, replaces: str | None = None) -> None:
  """Raises FolderError if `new` would not write to `out`."""
  if out.exists() and _is_used(out, replaces):
    raise _used(out)


def _is_used(folder: pathlib.Path, replaces: str | None) -> bool:
  used = not folder.is_dir() or any(folder.iterdir())
  return used and not (replaces and (folder / replaces).exists())


def _used(out: pathlib.Path) -> FolderError:
  return FolderError(f'{out} holds something already: choose a new folder')


def become(staging: pathlib.Path, out: pathlib.Path, replaces: str | None = None) -> None:
  """Puts the whole folder `staging` in the place of `out`, both on one file system.

  All of it is safe on the disk before it has its name. What is there now is moved aside and
  deleted last, so that a whole one is there at any time: by another name for a moment, and for
  good only if the process is killed at that moment.

  Args:
    staging: what has been written.
    out: see `new`; somebody may have put something there since `refuse_used` looked.
    replaces: see `new`.

  Raises:
    FolderError: `out` holds something else by now.
    OSError: it cannot be put there; `out` is what it was.
  """
  settle(staging)
  if not out.exists():
    staging.rename(out)
    settle_names(out.parent)
    return
  aside = out.with_name(f'{out.name}.replaced.{uuid.uuid4().hex[:8]}')
  out.rename(aside)
  try:
    if _is_used(aside, replaces):
      raise _used(out)
    staging.rename(out)
  except BaseException:
    aside.rename(out)
    raise
  settle_names(out.parent)
  discard(aside)


def discard(folder: pathlib.Path) -> None:
  """Deletes a folder that nobody needs; of one that cannot be deleted it only tells."""
  try:
    shutil.rmtree(folder)
  except OSError as error:
    logging.warning('%s is of no use any more, but cannot be deleted: %s', folder, error)


@contextlib.contextmanager
def writing(out: str | pathlib.Path) -> Iterator[None]:
  """Names `out` where something in it or beside it cannot be written.

  Raises:
    FolderError: instead of an OSError.
  """
  try:
    yield
  except OSError as error:
    raise FolderError(f'cannot write to {out}: {error}') from error


def settle(folder: str | os.PathLike) -> None:
  """Waits until all files below a folder, and their names, are on the disk.

  Raises:
    OSError: the disk does not keep one of them.
  """

  def fail(error: OSError):
    raise error

  for where, _, names in os.walk(folder, onerror=fail):
    for name in names:
      file = os.open(pathlib.Path(where, name), os.O_RDONLY)
      try:
        os.fsync(file)
      finally:
        os.close(file)
    settle_names(where)


def settle_names(folder: str | os.PathLike) -> None:
  """Waits until the names in a folder are on the disk, if its file system can tell."""
  with contextlib.suppress(OSError):  # of folders some know nothing
    file = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(file)
    finally:
      os.close(file)
