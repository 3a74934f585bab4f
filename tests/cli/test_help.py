"""What a tool says of itself."""

import json
import subprocess
import sys

import pytest

from data_pipelines.converting import conversion
from data_pipelines.preparing import preparation
from ttt_jax.serving import limits


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


@pytest.mark.parametrize(
  'tool,wanted',
  [
    ('serve', {'queue': limits.Limits.queue, 'answer_seconds': limits.Limits.answer_seconds}),
    (
      'prepare',
      {'max_seconds': conversion.Conversion.max_seconds, **preparation.Job._field_defaults},
    ),
  ],
)
def test_defaults_are_those_of_what_the_flags_set(tool, wanted):
  program = f"""
import json
import sys

sys.modules['fastapi'] = sys.modules['uvicorn'] = None  # flags are told without the extra
from absl import flags
from ttt_jax.cli import {tool}

print(json.dumps({{name: flags.FLAGS[name].default for name in {list(wanted)}}}))
"""
  said = subprocess.run([sys.executable, '-c', program], capture_output=True, check=True)
  assert json.loads(said.stdout) == wanted
