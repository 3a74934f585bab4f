"""The base of all errors that a user can mend."""


class UserError(ValueError):
  """What was given cannot be used.

  The message names the file, record or key and says what to do. Command-line tools print it
  alone; any other exception is a defect and shows its traceback.
  """
