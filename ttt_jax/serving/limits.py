"""What a server takes from a stranger, at most."""

import dataclasses

# Seconds in which the rest of a body is read that was answered before its end, so that the
# answer arrives.
LINGER = 2.0


@dataclasses.dataclass(frozen=True)
class Limits:
  """Sizes, lengths and times.

  Attributes:
    body: bytes of a request.
    bodies: bytes of all requests that are being received together.
    text: characters that are said.
    recording: seconds of a recording.
    queue: requests that wait for a place in the batch.
    connections: open at a time.
    head_seconds: for the head of a request to arrive.
    body_seconds: for its body.
    answer_seconds: from then to the end of the answer, time in the queue included.
    stall_seconds: in which a client must read some of what was sent.
  """

  body: int = 16 * 2**20
  bodies: int = 256 * 2**20
  text: int = 4000
  recording: float = 60.0
  queue: int = 64
  connections: int = 512
  head_seconds: float = 10.0
  body_seconds: float = 30.0
  answer_seconds: float = 120.0
  stall_seconds: float = 30.0
