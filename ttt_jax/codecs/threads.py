"""Small matrix products are slower on many threads than on one."""

import contextlib
import functools
import threading
from collections.abc import Iterator

import threadpoolctl


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
  return threadpoolctl.ThreadpoolController()


class _Limit:
  """A limit of the process: it holds from the first that enters to the last that leaves."""

  def __init__(self):
    self._lock, self._inside, self._lifted = threading.Lock(), 0, contextlib.ExitStack()

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    with self._lock:
      if not self._inside:
        self._lifted.enter_context(_controller().limit(limits=1, user_api='blas'))
      self._inside += 1
    try:
      yield
    finally:
      with self._lock:
        self._inside -= 1
        if not self._inside:
          self._lifted.close()


_LIMIT = _Limit()


def one_thread() -> contextlib.AbstractContextManager:
  """While this is entered, numpy's matrix products run on the calling thread.

  The products of a codec are so small that threads spend their time waiting for each other,
  above all where other programs run beside. Several threads may be within at once.
  """
  return _LIMIT.held()
