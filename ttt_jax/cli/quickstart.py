"""The whole loop on the little world: speech, records, training, judgement, report.

launch/quickstart.sh calls this. What is already done is skipped, so that a second run goes
on where the first stopped.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import time
from collections.abc import Collection

from absl import flags
from ml_collections import config_dict, config_flags

from data_pipelines.little_world import prepare
from ttt_jax import checkpoint
from ttt_jax import config as config_lib
from ttt_jax.cli import settings
from ttt_jax.evaluation import evaluate, in_training, offline, suite_file, summary
from ttt_jax.evaluation import suite as suite_lib
from ttt_jax.training import train

_CONFIG = settings.define_config('tiny.py')
_FOLDER = flags.DEFINE_string(
  'folder', None, 'Where everything is kept: runs/quickstart, or runs/quickstart-fast.'
)
_FAST = flags.DEFINE_bool(
  'fast', False, 'About two minutes; the model is under-trained. What other flags say stays.'
)
_INSTALL = flags.DEFINE_float('install_seconds', 0.0, 'What the set-up took, for the table.')

_TIMES = 'seconds.json'
FAST_NOTE = (
  'This was a fast run: the model saw a small part of the training that it needs, so its '
  'speech is poor. Run launch/quickstart.sh without --fast for the real figures.'
)


_FAST_CONFIG = {
  'train.steps': 150,
  'sampling.max_audio': 64,  # an under-trained model seldom ends by itself
}
_FAST_WORLD = {'strings': 400, 'tests': 12}


def shorten(
  config: config_dict.ConfigDict, world: prepare.Settings, given: Collection[str]
) -> prepare.Settings:
  """Makes the settings those of a fast run: everything as in a whole one, but little of it.

  Args:
    config: changed in place.
    world: what there is to make.
    given: keys of either that stay as they are.

  Returns:
    The other world.
  """
  config.update_from_flattened_dict({k: v for k, v in _FAST_CONFIG.items() if k not in given})
  less = {name: value for name, value in _FAST_WORLD.items() if name not in given}
  return dataclasses.replace(world, **less, ask_every=12, answer_every=5)


class _Stages:
  """Runs stages, keeps what each took, and skips those that are done."""

  def __init__(self, folder: pathlib.Path):
    self._path = folder / _TIMES
    self.seconds = json.loads(self._path.read_text()) if self._path.exists() else {}

  def run(self, name: str, done: bool, function) -> None:
    """Calls `function` unless `done`."""
    if done:
      print(f'{name}: done before')
      return
    print(f'{name} ...', flush=True)
    started = time.monotonic()
    function()
    self.add(name, time.monotonic() - started)

  def add(self, name: str, seconds: float) -> None:
    """Notes what a stage took."""
    self.seconds[name] = round(seconds, 1)
    self._path.write_text(json.dumps(self.seconds), encoding='utf-8')


def quickstart(
  config: config_dict.ConfigDict,
  world: prepare.Settings,
  folder: pathlib.Path,
  install_seconds: float,
  note: str,
) -> dict:
  """Runs what is not done yet in `folder`; returns the results."""
  data, run = folder / 'data', folder / 'run'
  config.data.directory = str(data)
  checked = config_lib.from_config_dict(config)
  described = {'config': checked.to_dict(), 'world': dataclasses.asdict(world)}
  _note(folder, described, begun=data.exists() or run.exists())
  stages = _Stages(folder)
  if install_seconds and 'install' not in stages.seconds:
    stages.add('install', install_seconds)
  stages.run('prepare', data.exists(), lambda: prepare.prepare(data, world))
  trained = _trained(run, checked.train.steps)
  judge = in_training.judge(checked, run)
  stages.run('train', trained, lambda: train.train(checked, run, judge=judge))
  path = folder / evaluate.RESULTS
  more = {'seconds': stages.seconds, 'command': ' '.join(sys.argv), 'note': note}
  stages.run(
    'evaluate',
    trained and _judged(path),
    lambda: offline.run(_suite(data), [str(run)], str(folder), **more),
  )
  return json.loads(path.read_text(encoding='utf-8'))


def _suite(data: pathlib.Path) -> suite_lib.Suite:
  return suite_file.standard(str(data), prepare.recogniser(data))


def _trained(run: pathlib.Path, steps: int) -> bool:
  try:
    return checkpoint.latest(run) >= steps
  except checkpoint.CheckpointError:
    return False


def _judged(path: pathlib.Path) -> bool:
  """Whether there are results, of enough items; those that failed are worth another trial."""
  return path.exists() and not evaluate.too_many_failed(json.loads(path.read_text('utf-8')))


def _note(folder: pathlib.Path, described: dict, begun: bool) -> None:
  """Writes down what the folder is for, unless something else has `begun` in it."""
  path = folder / 'quickstart.json'
  text = json.dumps(described, indent=1, sort_keys=True) + '\n'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if begun and path.exists() and path.read_text(encoding='utf-8') != text:
      raise config_lib.ConfigError(
        f'{folder} holds a quickstart with other settings (see {path}): '
        'remove it, or choose another --folder'
      )
    path.write_text(text, encoding='utf-8')
  except OSError as error:
    raise config_lib.ConfigError(f'cannot write to --folder={folder}: {error}') from error


def main():
  """Reads the flags."""
  default = 'runs/quickstart-fast' if _FAST.value else 'runs/quickstart'
  folder = pathlib.Path(_FOLDER.value or default)
  world, config, note = prepare.settings_from_flags(), _CONFIG.value, ''
  settings.checked(config)
  if _FAST.value:
    world = shorten(config, world, _given())
    note = FAST_NOTE
  results = quickstart(config, world, folder, _INSTALL.value, note)
  print('\n' + summary.table(results))
  generate = shutil.which('ttt-generate', path=str(pathlib.Path(sys.executable).parent))
  generate = generate or 'ttt-generate'
  print(f'\nreport:  {(folder / evaluate.REPORT).resolve()}')
  print('speak:   digits and small sums in words, such as')
  print(f'  {generate} --checkpoint={folder / "run"} --speak="three seven one" --out=out.wav')


def _given() -> set[str]:
  """Keys of the config, and of the world, that the command line names."""
  values = flags.FLAGS
  keys = set(config_flags.get_override_values(values[_CONFIG.name]))
  return keys | {name for name in _FAST_WORLD if values[name].present}


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
