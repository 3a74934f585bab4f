"""The tools as a user calls them, but for the seconds in which libraries are imported.

All are children of one process, with its seed of hashes. Output and errors are one text.
"""

import atexit
import functools
import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile
from multiprocessing import forkserver
from unittest import mock

import ttt_jax

ROOT = pathlib.Path(ttt_jax.__file__).parents[1]

# What takes long to import. Nothing of it may start JAX, which has threads that a fork loses,
# or define flags, which are those of one tool.
_MODULES = ['ttt_jax.training.loop', 'ttt_jax.sampling.decoder', 'ttt_jax.evaluation.offline']
# One device, and what is compiled is made fast: not as conftest has it.
_VARIABLES = {'XLA_FLAGS': '', 'JAX_DISABLE_MOST_OPTIMIZATIONS': 'false'}


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
  """Forks for each call from a process that has imported all that; JAX's variables are its."""
  made = multiprocessing.get_context('forkserver')
  made.set_forkserver_preload(_MODULES)
  with mock.patch.dict(os.environ, _VARIABLES):
    forkserver.ensure_running()
  return made


def tool(name: str, *arguments) -> tuple[int, str]:
  """Runs a tool in a process of its own, on one device: exit code and output."""
  words = list(map(str, arguments))
  with tempfile.NamedTemporaryFile() as output:
    variables = os.environ | _VARIABLES
    process = _server().Process(target=_main, args=(name, words, variables, output.name))
    process.start()
    process.join()
    return process.exitcode, output.read().decode()


def _main(name: str, words: list[str], variables: dict[str, str], output: str) -> None:
  """What `python -m ttt_jax.cli.NAME WORDS` does."""
  file = os.open(output, os.O_WRONLY | os.O_APPEND)
  for standard in (1, 2):
    os.dup2(file, standard)
  os.chdir(ROOT)
  os.environ.clear()
  os.environ |= variables
  sys.argv = ['', *words]
  try:
    runpy.run_module(f'ttt_jax.cli.{name}', run_name='__main__', alter_sys=True)
  finally:
    atexit._run_exitfuncs()  # before Python 3.13, a fork leaves them out
