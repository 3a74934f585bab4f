"""What a tool says of itself."""

import subprocess
import sys


def test_help_tells_what_a_tool_does_and_all_its_flags():
  # As the script of a package does: what it runs is no main module.
  program = 'from ttt_jax.cli import generate; generate.run()'
  said = subprocess.run(
    [sys.executable, '-c', program, '--help'], capture_output=True, text=True
  ).stdout
  assert 'ttt-generate --checkpoint=RUN --transcribe=in.wav' in said
  assert '--transcribe: Recording to write down.' in said  # a flag of the tool
  assert '--threshold: Reveal all' in said  # and one that it shares
  assert '--logtostderr' not in said  # but none of a library
