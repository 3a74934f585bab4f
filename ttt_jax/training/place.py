"""The folder in which a run trains: one for all of its processes, and for no other run."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from ttt_jax import checkpoint, together

LOCK = '.lock'
_LOCAL = {'nolock', 'local_lock=all', 'local_lock=flock'}  # options of NFS


def refuse_unshared(workdir: str | pathlib.Path, patience: float = 60) -> None:
  """Refuses a folder that is another one on the machine of another process.

  Each process would keep its part of a checkpoint to itself, and no checkpoint could be read.

  Args:
    workdir: folder of the run, which is made.
    patience: seconds until what one process writes must be seen by all; file systems of
      networks take their time.

  Raises:
    CheckpointError: the first process cannot write there (`ElsewhereError` in the others), or
      some do not see what it writes (in all).
  """
  if jax.process_count() == 1:
    return
  token = multihost_utils.broadcast_one_to_all(np.random.default_rng().integers(2**31))
  mark = pathlib.Path(workdir, f'.shared-{token}')
  together.checked(lambda: _by_first(workdir, mark.touch))
  end = time.monotonic() + patience
  while not (found := mark.exists()) and time.monotonic() < end:
    time.sleep(0.1)
  blind = np.flatnonzero(~multihost_utils.process_allgather(np.array(found)))
  if found and jax.process_index() == 0:
    mark.unlink()
  if blind.size:
    raise checkpoint.CheckpointError(
      f'{workdir} is not one folder for all processes: what process 0 writes to it, '
      f'processes {blind.tolist()} do not see; mount one storage on every machine'
    )


@contextlib.contextmanager
def alone(workdir: str | pathlib.Path, patience: float) -> Iterator[None]:
  """Holds a folder, which no other run may train in meanwhile; the first process does, for all.

  It is free again when that process ends, however it does. A run that was told to stop may
  save still, and its supervisor may be gone: so this waits for its end.

  Args:
    workdir: folder of the run, which is made.
    patience: seconds in which another run may end.

  Raises:
    CheckpointError: another run holds it still, or it cannot be written; in the first process,
      and `ElsewhereError` in the others.
  """
  with contextlib.ExitStack() as stack:

    def hold() -> None:
      path = pathlib.Path(workdir, LOCK)
      if not _held(stack.enter_context(path.open('a+')), patience):
        raise checkpoint.CheckpointError(
          f'{workdir}: another run trains here (its process and machine stand in {path}). Stop '
          'it, or use another folder. If that machine is gone for good and its storage keeps '
          'the lock, delete this file'
        )

    together.checked(lambda: _by_first(workdir, hold))
    yield


def _by_first(workdir: str | pathlib.Path, act: Callable[[], None]) -> None:
  """Makes a folder and does something in it, in the first process.

  Raises:
    CheckpointError: it cannot be written.
  """
  if jax.process_index() != 0:
    return
  try:
    pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
    act()
  except OSError as error:
    raise checkpoint.CheckpointError(f'cannot write to {workdir}: {error}') from error


def _held(file: IO[str], patience: float) -> bool:
  """Whether this process holds the file now; waits for another one to let it go."""
  end, told = time.monotonic() + patience, False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except BlockingIOError:
      if time.monotonic() > end:
        return False
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
        raise
      logging.warning('%s cannot be locked (%s): nothing stops a second run', file.name, error)
      return True
    if not told:
      logging.warning('%s: another run holds it; up to %g s for its end', file.name, patience)
    told = True
    time.sleep(0.2)
  if kind := local_locks(os.fstat(file.fileno()).st_dev):
    logging.warning(
      '%s lies on %s, where a lock may hold on this machine alone: see to it that no other one '
      'trains here',
      *(file.name, kind),
    )
  with contextlib.suppress(OSError):  # a full disk: it is held all the same
    file.truncate(0)
    file.write(f'{os.getpid()} on {socket.gethostname()}\n')
    file.flush()
  return True


def local_locks(device: int, mounts: str = '/proc/self/mountinfo') -> str | None:
  """The kind of a file system of which other machines may not see the locks; None elsewhere.

  Args:
    device: number of the device (`st_dev`) of a file in it.
    mounts: where Linux lists what is mounted.
  """
  with contextlib.suppress(OSError):
    for line in pathlib.Path(mounts).read_text(errors='replace').splitlines():
      mount, _, system = line.partition(' - ')
      if mount.split()[2] != f'{os.major(device)}:{os.minor(device)}':
        continue
      kind, *_, options = system.split()
      fuse, nfs = kind.split('.')[0] == 'fuse', kind.startswith('nfs')
      if fuse or nfs and _LOCAL & set(options.split(',')):
        return kind
  return None
