"""The base of all errors that a user can mend."""

import difflib
import os

FINAL = os.EX_CONFIG  # exit code of a tool for an error that no other start can mend


class UserError(ValueError):
  """What was given cannot be used.

  The message names the file, record or key and says what to do. Command-line tools print it
  alone; any other exception is a defect and shows its traceback.

  Attributes:
    exit_code: that of such a tool, `FINAL` where what was asked for is wrong by itself.
  """

  exit_code = 1


def nearest(name: str, names: list[str]) -> str:
  """A hint, empty if nothing is near: ` (did you mean ...?)`."""
  close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
  return f' (did you mean {close[0]!r}?)' if close else ''
