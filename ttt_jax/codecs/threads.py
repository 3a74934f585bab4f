"""Small matrix products are slower on many threads than on one."""

import contextlib
import functools

import threadpoolctl


@functools.cache
def _controller() -> threadpoolctl.ThreadpoolController:
  return threadpoolctl.ThreadpoolController()


def one_thread() -> contextlib.AbstractContextManager:
  """While this is entered, numpy's matrix products run on the calling thread.

  The products of a codec are so small that threads spend their time waiting for each other,
  above all where other programs run beside.
  """
  return _controller().limit(limits=1, user_api='blas')
