"""What cannot be answered, as HTTP says it."""


class Problem(Exception):
  """Ends a request.

  Attributes:
    status: of HTTP.
    headers: to send along.
  """

  def __init__(self, status: int, message: str, headers: dict[str, str] | None = None):
    super().__init__(message)
    self.status, self.headers = status, headers or {}
