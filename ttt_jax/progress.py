"""Bars on the console."""

import contextlib

import tqdm


class Bar(tqdm.tqdm):
  """A bar that ends no run because who looked is gone, or a disk behind it full."""

  def display(self, *arguments, **more):
    with contextlib.suppress(OSError):
      return super().display(*arguments, **more)

  def close(self):
    with contextlib.suppress(OSError):
      super().close()
