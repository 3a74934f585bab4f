"""The base of all errors that a user can mend."""

import difflib
import os

PASSING = os.EX_TEMPFAIL  # exit code of a tool whose error time may mend


class UserError(ValueError):
  """What was given cannot be used.

  The message names the file, record or key and says what to do. Command-line tools print it
  alone; any other exception is a defect and shows its traceback.
  """


def code(error: UserError) -> int:
  """The exit code of a tool that ends by an error.

  What goes back to an OSError, of which a time-out is one, may pass: storage that does not
  answer yet, another process that is late.
  """
  while (cause := error.__cause__) is not None:
    error = cause
    if isinstance(error, OSError):
      return PASSING
  return 1


def nearest(name: str, names: list[str]) -> str:
  """A hint, empty if nothing is near: ` (did you mean ...?)`."""
  close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  return f' (did you mean {close[0]!r}?)' if close else ''
