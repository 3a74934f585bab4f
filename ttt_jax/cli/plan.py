r"""Says what a training step takes on a TPU topology, by compiling it; no TPU is needed.

ttt-plan --config=configs/ttt_7b.py --topology=v5p:4x4x4 --rows_per_part=1
"""

import dataclasses
import functools
import itertools
import json
import pathlib

import tqdm
from absl import flags

from data_pipelines.stream import loader, mixture
from data_pipelines.stream import rows as rows_lib
from ttt_jax import config as config_lib
from ttt_jax import errors, sharding
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.cli import settings
from ttt_jax.model import formula
from ttt_jax.planning import plan, report, sweep, topologies

_CONFIG = settings.define_config()
_TOPOLOGY = flags.DEFINE_string(
  'topology', 'v5e:2x2', 'As v5e:16x16, v5p:4x4x4, or v5e:16x16*2 for two slices.'
)
_ROWS = flags.DEFINE_integer(
  'rows_per_part',
  0,
  'Rows for each part into which a mesh cuts a batch; 0: data.batch_size, in a sweep 1 and 2.',
  lower_bound=0,
)
_SWEEP = flags.DEFINE_bool(
  'sweep', False, 'Try meshes, batches and remat policies, and rank them.'
)
_JSON = flags.DEFINE_string('json', '', 'File for the plans.')
_PLOT = flags.DEFINE_string('plot', '', 'File for a picture of the plans, SVG.')
_KEEP = flags.DEFINE_string(
  'keep',
  str(pathlib.Path('~', '.cache', 'ttt_jax', 'plans')),
  "Folder of plans made; '': none.",
)
_TEXT_TOKENS = flags.DEFINE_integer(
  'text_tokens',
  151_665,
  "Size of the tokenizer (Qwen2.5's), where data.directory is empty.",
  lower_bound=len(vocabulary_lib.TEXT_SPECIALS),
)
_CODES = flags.DEFINE_integer(
  'codes',
  16_384,
  "Codes of the codec (GLM-4-Voice's), where data.directory is empty.",
  lower_bound=1,
)
_DOCUMENT = flags.DEFINE_float(
  'document', 1024, 'Tokens of a document, where data.directory is empty.'
)
_TARGETS = flags.DEFINE_float(
  'targets', 0.5, 'Share of positions that are targets, where data.directory is empty.'
)


def _supposed(config: config_lib.Config) -> tuple[vocabulary_lib.Vocabulary, formula.Rows]:
  """Of the data if there are any, else of the flags."""
  if not config.data.directory:
    if not 0 < _TARGETS.value <= 1 or _DOCUMENT.value <= 0:
      raise errors.UserError('--targets must be in (0, 1], and --document above 0')
    vocabulary = plan.assumed(_TEXT_TOKENS.value, _CODES.value)
    document = min(_DOCUMENT.value, config.data.row_length)
    return vocabulary, formula.typical(document, _TARGETS.value)
  sources = mixture.open_all(config.data)
  rows = rows_lib.Rows(sources, config.data, config.mask, config.objective, config.seed)
  batches = loader.batches(rows, min(config.data.batch_size, 16), 4)
  return sources[0].assets.vocabulary, formula.mean([formula.measured(b) for b in batches])


def _chosen(config: config_lib.Config, topology: str) -> config_lib.Config:
  """With the batch that the flags ask for."""
  if not _ROWS.value:
    return config
  parts = sharding.rows_of(sharding.make_mesh(config.mesh, topologies.devices(topology)))
  size = _ROWS.value * parts
  return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=size))


def _check_writable(folder: pathlib.Path | None) -> None:
  """Makes the folder for plans, and looks whether the files to write have one.

  Raises:
    UserError: they cannot be written; names the flag.
  """
  try:
    if folder:
      folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f"--keep={folder} cannot be made a folder ({error.strerror}): give another, or ''"
    ) from error
  settings.check_files(_JSON, _PLOT)


def main():
  """Reads the flags.

  Raises:
    UserError: they do not fit together, or what they name is not there.
  """
  config, topology = settings.checked(_CONFIG.value), _TOPOLOGY.value
  topologies.devices(topology)  # what is wrong is told before anything is read or compiled
  folder = pathlib.Path(_KEEP.value).expanduser() if _KEEP.value else None
  _check_writable(folder)
  vocabulary, rows = _supposed(config)
  make = functools.partial(
    sweep.kept, vocabulary=vocabulary, topology=topology, rows=rows, folder=folder
  )
  if _SWEEP.value:
    each = (_ROWS.value,) if _ROWS.value else (1, 2)
    plans = report.ranked(_swept(make, list(sweep.candidates(config, topology, each))))
    print(report.table(plans))
  else:
    plans = [make(_chosen(config, topology))]
    print(report.text(plans[0]))
  if _JSON.value:
    made = json.dumps([made.to_dict() for made in plans], indent=1)
    pathlib.Path(_JSON.value).write_text(made + '\n', encoding='utf-8')
  if _PLOT.value:
    pathlib.Path(_PLOT.value).write_text(report.drawing(plans), encoding='utf-8')


def _swept(make, configs: list[config_lib.Config]) -> list[plan.Plan]:
  """Plans of all that the model allows; at least one."""
  plans, refused = [], []
  for config in tqdm.tqdm(configs, desc='compile', unit='plan'):
    try:
      plans.append(make(config))
    except config_lib.ConfigError as error:
      refused.append(error)
  for error in itertools.islice(dict.fromkeys(map(str, refused)), 10):
    print(f'not tried: {error}')
  if not plans:
    raise refused[0]
  return plans


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
