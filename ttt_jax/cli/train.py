r"""Trains a model.

ttt-train --config=configs/tiny.py --config.data.directory=DATA --workdir=RUN

Several processes train together when each is started with the same flags and --distributed.
On a TPU pod, and under Slurm or Open MPI, they find each other. Elsewhere each one is told
where the first one listens, how many there are, and its own number:

ttt-train ... --distributed --coordinator=HOST:PORT --processes=2 --process=0

With --supervise a run that ends before its last step is started again, by a process of its own
on each machine.
"""

import functools
import sys

import jax
from absl import flags

from ttt_jax import config as config_lib
from ttt_jax import errors, together
from ttt_jax.cli import settings
from ttt_jax.evaluation import in_training
from ttt_jax.training import loop, stopping, supervise, trace, train

_CONFIG = settings.define_config()
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; a run in it goes on.', required=True
)
_DISTRIBUTED = flags.DEFINE_bool('distributed', False, 'Train with other processes.')
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process.')
flags.register_validator(
  'coordinator', lambda value: value is None or ':' in value, 'it has no port: HOST:PORT'
)
_PROCESSES = flags.DEFINE_integer('processes', None, 'How many there are.', lower_bound=1)
_PROCESS = flags.DEFINE_integer('process', None, 'Number of this process.', lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer(
  'heartbeat', 100, 'Seconds of silence after which a process is dead, and all end.', 1
)
_PROFILE = flags.DEFINE_string(
  'profile_steps', '', 'First and last step, such as 10:15: a trace goes to WORKDIR/profile.'
)
_SUPERVISE = flags.DEFINE_bool('supervise', False, 'Start the run again when it fails.')
_SUPERVISED = flags.DEFINE_bool(
  'supervised', False, 'Set by --supervise: end when the standard input does.'
)
_ALLOW = flags.DEFINE_list(
  'allow', [], 'Settings, by commas, that may differ from those of the run that goes on.'
)


def _join() -> None:
  """Joins the other processes of the run.

  Raises:
    UserError: they cannot be found, or some of the flags that name them are missing.
  """
  told = _COORDINATOR.value, _PROCESSES.value, _PROCESS.value
  if None in told and told != (None, None, None):
    raise config_lib.ConfigError('--coordinator, --processes and --process go together')
  # JAX would catch SIGTERM and train on, for programs that look now and then if it came.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(*told, heartbeat_timeout_seconds=_HEARTBEAT.value)
  except ValueError as error:
    raise errors.UserError(
      f'--distributed: {error} Where JAX does not find the processes by itself, give '
      '--coordinator, --processes and --process'
    ) from error


def _supervise() -> int:
  """Trains in processes that are started again; the exit code."""
  config = settings.checked(_CONFIG.value)  # what is wrong here, no new start mends
  own = ('--nosupervise', '--supervised')  # the last word counts, however it was said before
  command = [sys.executable, '-m', 'ttt_jax.cli.train', *sys.argv[1:], *own]
  try:
    return supervise.supervise(command, _WORKDIR.value, config.guard)
  except supervise.GivenUp as error:
    raise errors.UserError(str(error)) from error


def _asked() -> tuple[config_lib.Config, range, loop.Judge | None]:
  """The settings, steps of which a trace is written, and who judges.

  Raises:
    UserError: they cannot be used.
  """
  config = settings.checked(_CONFIG.value)
  profiled = trace.parse(_PROFILE.value, config.train.steps)
  return config, profiled, in_training.judge(config, _WORKDIR.value)


def main():
  """Reads the flags.

  Raises:
    UserError: they do not fit together.
  """
  if _SUPERVISE.value:
    sys.exit(_supervise())
  if _SUPERVISED.value:
    supervise.end_with_input()
  if _DISTRIBUTED.value:
    _join()
  elif _COORDINATOR.value or _PROCESSES.value or _PROCESS.value is not None:
    raise config_lib.ConfigError('--coordinator, --processes and --process need --distributed')
  config, profiled, judge = together.checked(_asked)
  try:
    train.train(config, _WORKDIR.value, profiled, judge, allowed=_ALLOW.value)
  except BaseException as error:
    if not isinstance(error, stopping.Stopped):
      stopping.end_within(config.guard.grace, error)
      raise
    stopping.end_within(error.left, error)
    print(f'stopped: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  stopping.end_within(config.guard.grace)


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
