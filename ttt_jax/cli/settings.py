"""What the command-line tools share: the flag --config, and how errors are shown."""

import logging as std_logging
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

import configs
from ttt_jax import checks, errors
from ttt_jax import config as config_lib


def define_config(default: str | None = None):
  """Defines the flag --config, whose keys are changed by --config.key=value.

  Keys that do not exist end the tool here: where there is a default, ml_collections reads
  those of the command line at once.

  Args:
    default: name of a file of the package `configs`, wherever it is installed.
  """
  for word in sys.argv[1:]:
    if found := re.match(r'--?(?:no)?config\.([^=]*)', word):
      try:
        checks.require_key(config_lib.Config, found[1])
      except config_lib.ConfigError as error:
        _end(error)
  path = default and str(pathlib.Path(configs.__file__).with_name(default))
  return config_flags.DEFINE_config_file('config', path, 'Config file.')


def checked(config) -> config_lib.Config:
  """The settings of an ml_collections config.

  Raises:
    ConfigError: no config was given, or it does not fit.
  """
  if config is None:
    raise config_lib.ConfigError('--config=FILE is needed, say --config=configs/tiny.py')
  try:
    values = config.to_dict()
  except OSError as error:  # ml_collections puts off what it found when it parsed the flag
    reason = str(error).strip().splitlines()[-1].strip()
    raise config_lib.ConfigError(f'--config: {reason}') from error
  except AttributeError as error:
    raise config_lib.ConfigError(
      f'--config: its get_config() must return a ConfigDict, not {config!r:.60}; start from '
      'that of configs/base.py'
    ) from error
  return config_lib.from_config_dict(values)


def check_files(*written: flags.FlagHolder) -> None:
  """Looks whether there is a folder for each file that flags name, before work begins.

  Args:
    written: flags for files to write, which may be left out.

  Raises:
    UserError: there is none, or the file is a folder; names the flag.
  """
  for flag in written:
    path = flag.value
    if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or '.')):
      raise errors.UserError(
        f'--{flag.name}={path} cannot be written: give a file in a folder that exists'
      )


def run(main: Callable | None = None, commands: dict[str, Callable] | None = None) -> None:
  """Parses flags and runs `main`; what the user can mend is printed without a traceback.

  Args:
    main: what the tool does.
    commands: instead of `main`, what it does by the first word of its command line.
  """

  def guarded(argv):
    try:
      _chosen(argv[1:], main, commands)()
    except errors.UserError as error:
      _end(error)

  _explain((main or next(iter(commands.values()))).__module__)
  logging.get_absl_handler().addFilter(_ours)
  app.run(guarded, flags_parser=_parse)


def _end(error: errors.UserError) -> NoReturn:
  print(f'error: {error}', file=sys.stderr)
  sys.exit(error.exit_code)


def _explain(module: str) -> None:
  """Lets --help tell what a module says of itself, and the flags of all tools there are.

  Left alone, it tells those of the script that is run, which has none.
  """
  about = sys.modules[module].__doc__ or ''  # without one under python -OO
  sys.modules['__main__'].__doc__ = about.replace('%', '%%')
  for name, defined in flags.FLAGS.flags_by_module_dict().items():
    if name.startswith(('ttt_jax.', 'data_pipelines.')):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _chosen(words: list[str], main: Callable | None, commands: dict | None) -> Callable:
  if commands is not None:
    if not words or words[0] not in commands:
      raise errors.UserError(f'begin with one of: {", ".join(commands)}')
    main, words = commands[words[0]], words[1:]
  if words:
    raise errors.UserError(f'not understood: {" ".join(words)}')
  return main


def _ours(record) -> bool:
  """Whether a line of the log is for the user: libraries may warn, but not chat."""
  if 'orbax' in record.pathname:  # it warns of what is as it should be
    return record.levelno >= std_logging.ERROR
  return record.levelno >= std_logging.WARNING or 'ttt_jax' in record.pathname


def _parse(argv: list[str]) -> list[str]:
  # Names of flags may be written with dashes, as elsewhere.
  argv = [re.sub('^--?[a-z0-9_-]+', _underscored, word) for word in argv]
  try:
    return flags.FLAGS(argv)
  except SyntaxError as error:  # of a config file
    sys.exit(f'error: --config: {error.filename}, line {error.lineno}: {error.msg}')
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    sys.exit(f'error: {error}')


def _underscored(name: re.Match) -> str:
  dashes = '--' if name[0].startswith('--') else '-'
  return dashes + name[0].removeprefix(dashes).replace('-', '_')
