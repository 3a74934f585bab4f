"""What the machine has that this process may use."""

import os


def cores() -> int:
  """How many this process may run on; where the system (macOS) cannot tell, all there are."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
