"""Limits of threads that several set at once."""

import threadpoolctl

from ttt_jax.codecs import threads


def counts() -> set[int]:
  return {
    library['num_threads']
    for library in threadpoolctl.threadpool_info()
    if library['user_api'] == 'blas'
  }


def test_the_last_that_leaves_lifts_the_limit():
  with threadpoolctl.threadpool_limits(2, 'blas'):
    first, second = threads.one_thread(), threads.one_thread()
    first.__enter__()
    second.__enter__()
    assert counts() == {1}
    first.__exit__(None, None, None)
    assert counts() == {1}
    second.__exit__(None, None, None)
    assert counts() == {2}
    with threads.one_thread():
      assert counts() == {1}
    assert counts() == {2}
