"""The tools as a user calls them, but for the seconds in which libraries are imported."""

import multiprocessing
import os
import pathlib
import runpy
import sys
import tempfile

import machines

import ttt_jax

ROOT = pathlib.Path(ttt_jax.__file__).parents[1]

# A server imports what takes long, once, and forks for each call. It may not start JAX: that
# has threads, which a fork loses. Nor may it define flags, which are those of one tool.
_SERVER = multiprocessing.get_context('forkserver')
_SERVER.set_forkserver_preload(
  ['ttt_jax.training.loop', 'ttt_jax.sampling.decoder', 'ttt_jax.evaluation.offline']
)


def tool(name: str, *arguments) -> tuple[int, str]:
  """Runs a tool in a process of its own, on one device: exit code and output."""
  words = list(map(str, arguments))
  with tempfile.NamedTemporaryFile() as output:
    process = _SERVER.Process(target=_main, args=(name, words, dict(os.environ), output.name))
    process.start()
    process.join()
    return process.exitcode, output.read().decode()


def _main(name: str, words: list[str], environment: dict[str, str], output: str) -> None:
  """What `python -m ttt_jax.cli.NAME WORDS` does."""
  file = os.open(output, os.O_WRONLY | os.O_APPEND)
  for standard in (1, 2):
    os.dup2(file, standard)
  os.chdir(ROOT)
  os.environ |= environment | {'XLA_FLAGS': machines.xla_flags(devices=1)}
  sys.argv = ['', *words]
  runpy.run_module(f'ttt_jax.cli.{name}', run_name='__main__', alter_sys=True)
