"""Folders that come into being whole, or not at all."""

import contextlib
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
      become(staging, out)
    finally:
      shutil.rmtree(staging, ignore_errors=True)


def refuse_used(out: pathlib.Path, replaces: str | None = None) -> None:
  """Raises FolderError if `new` would not write to `out`."""
  used = out.exists() and (not out.is_dir() or any(out.iterdir()))
  if used and not (replaces and (out / replaces).exists()):
    raise FolderError(f'{out} holds something already: choose a new folder')


def become(staging: pathlib.Path, out: pathlib.Path) -> None:
  """Puts the whole folder `staging` in the place of `out`, both on one file system.

  What is there now is moved aside and deleted last, so that a whole one is there at any time:
  by another name for a moment, and for good only if the process is killed at that moment.

  Raises:
    OSError: it cannot be put there; `out` is what it was.
  """
  if not out.exists():
    staging.rename(out)
    return
  aside = out.with_name(f'{out.name}.replaced.{uuid.uuid4().hex[:8]}')
  out.rename(aside)
  try:
    staging.rename(out)
  except BaseException:
    aside.rename(out)
    raise
  try:
    shutil.rmtree(aside)
  except OSError as error:
    logging.warning('%s is replaced, but what it was is left in %s: %s', out, aside, error)


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
