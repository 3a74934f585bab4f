import ast
import json
import pathlib

import pytest
from absl import flags
from ml_collections import config_flags

from configs import base, tiny
from ttt_jax import checks
from ttt_jax import config as config_lib
from ttt_jax.config import ConfigError, from_config_dict

ROOT = pathlib.Path(config_lib.__file__).parents[1]


def test_defaults_are_complete_and_tiny_builds_on_them():
  assert from_config_dict(base.get_config()).seed == 0
  assert from_config_dict(tiny.get_config()).model.dtype == 'float32'


def test_round_trip_through_json():
  config = from_config_dict(base.get_config())
  assert from_config_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_key_names_the_nearest():
  values = base.get_config().to_dict()
  values['optimizer']['learning_rat'] = 1.0
  with pytest.raises(ConfigError, match=r"config.optimizer.learning_rat .*'learning_rate'"):
    from_config_dict(values)


def paths(config, prefix=''):
  for key, value in config.items():
    yield prefix + key
    if isinstance(value, dict):
      yield from paths(value, f'{prefix}{key}.')


def test_all_keys_are_known_by_their_path_and_no_others():
  known = list(paths(base.get_config().to_dict()))
  assert 'seed' in known and 'optimizer.learning_rate' in known
  for path in known:
    checks.require_key(config_lib.Config, path)
    for wrong in (path + 'z', path + '.', path + '.x', 'x.' + path):
      with pytest.raises(ConfigError, match='no such key: config.'):
        checks.require_key(config_lib.Config, wrong)


@pytest.mark.parametrize(
  'path,said',
  [
    ('train.step', r"config.train.step \(did you mean 'steps'\?\)$"),
    ('optimizer.lr', r'config.optimizer.lr \(there is: name, learning_rate, .*clip_norm\)$'),
    ('trane.steps', r"config.trane \(did you mean 'train'\?\)$"),
    ('train.steps.x', 'config.train.steps.x$'),
  ],
)
def test_a_path_that_leads_nowhere_is_named_up_to_where_it_goes_wrong(path, said):
  with pytest.raises(ConfigError, match=f'^no such key: {said}'):
    checks.require_key(config_lib.Config, path)


def test_missing_key_is_named():
  values = base.get_config().to_dict()
  del values['train']['steps']
  with pytest.raises(ConfigError, match='missing: config.train.steps'):
    from_config_dict(values)


@pytest.mark.parametrize(
  'key,value',
  [
    ('train.steps', 0),
    ('train.steps', '10'),
    ('train.steps', True),
    ('train.keep_every', -100),
    ('train.keep_every', 150),
    ('data.weights', (1.0, 2.0)),
    ('data.weights', '1.0'),
    ('data.weights', (0.0, 0.0, 0.0)),
    ('data.weights', (1.0, -1.0, 1.0)),
    ('data.weights', (1.0, float('nan'), 1.0)),
    ('data.temperature', 0.0),
    ('data.changes', ((0, (1.0, 1.0, 1.0)),)),
    ('data.changes', ((5, (1.0, 1.0, 1.0)), (5, (1.0, 2.0, 1.0)))),
    ('data.workers', -1),
    ('objective.ppm', 1.5),
    ('objective.condition_dropout', -0.1),
    ('objective.schedule', 'linnear'),
    ('objective.epsilon', 0.0),
    ('objective.sst_range', (0.9, 0.3)),
    ('objective.sst_range', (0.3,)),
    ('model.kv_heads', 3),
    ('model.head_width', 7),
    ('model.dtype', 'float16'),
    ('model.attention', 'magic'),
    ('model.loss_chunk', 0),
    ('objective.z_loss', -1e-4),
    ('objective.restrict_classes', 1),
    ('mask.audio', 'all'),
    ('mesh.data', 0),
    ('sampling.text_temperature', -1.0),
    ('sampling.guidance', -0.5),
    ('sampling.order', 'first'),
    ('sampling.threshold', 1.0),
    ('sampling.top_k', -1),
    ('sampling.top_p', 0.0),
    ('sampling.block_size', 513),
    ('sampling.max_prompt', 0),
    ('sampling.batch', 0),
    ('optimizer.beta2', 1.0),
    ('evaluation.every', -1),
  ],
)
def test_impossible_values_name_their_key(key, value):
  values = base.get_config().to_dict()
  values['data']['directory'] = 'a,b,c'
  part, name = key.split('.')
  values[part][name] = value
  with pytest.raises(ConfigError, match=f'config.{key} is '):
    from_config_dict(values)


@pytest.mark.parametrize(
  'changes,said',
  [(((5, (1.0, 2.0)),), 'is .1.0, 2.0., but must be 3 weights'), (((5,),), '2 values')],
)
def test_changes_of_weights_are_of_all_data_sets(changes, said):
  values = base.get_config().to_dict()
  values['data'] |= {'directory': 'a,b,c', 'changes': changes}
  with pytest.raises(ConfigError, match=f'config.data.changes .*{said}'):
    from_config_dict(values)


def parsed(monkeypatch, name, words):
  """A config of ours as a command line changes it."""
  command = ['ttt-train', f'--config={ROOT / "configs" / name}.py']
  command += [f'--config.{word}' for word in words]
  monkeypatch.setattr('sys.argv', command)  # where ml_collections looks for keys
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  values(command)
  return values.config


def test_data_sets_are_set_on_the_command_line_and_kept(monkeypatch):
  words = ('directory=a/x, b', 'weights=(3, 1.5)', 'changes=((5000, (1, 1)), (9000, (0, 1.0)))')
  config = from_config_dict(parsed(monkeypatch, 'tiny', [f'data.{word}' for word in words]))
  assert config.data.directories == ['a/x', 'b'] and config.data.weights == (3.0, 1.5)
  assert config.data.changes == ((5000, (1.0, 1.0)), (9000, (0.0, 1.0)))
  assert from_config_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
  'words,steps,warmup',
  [
    ([], 10_000, 100),
    (['train.steps=3000'], 3000, 30),
    (['train.steps=3000', 'optimizer.warmup_steps=7'], 3000, 7),
    (['optimizer.warmup_steps=7', 'train.steps=3000'], 3000, 7),
    (['train.steps=50'], 50, 0),
  ],
)
def test_the_warm_up_of_the_recipe_is_a_share_of_the_steps_that_are_run(
  monkeypatch, words, steps, warmup
):
  config = from_config_dict(parsed(monkeypatch, 'ttt_0p5b', words))
  assert (config.train.steps, config.optimizer.warmup_steps) == (steps, warmup)
  assert type(config.optimizer.warmup_steps) is int


def test_a_threshold_needs_the_order_of_confidence():
  values = base.get_config().to_dict()
  values['sampling'] |= {'order': 'random', 'threshold': 0.5}
  with pytest.raises(ConfigError, match="config.sampling.threshold is 0.5.*'random'"):
    from_config_dict(values)


def test_at_most_one_axis_takes_what_is_left():
  values = base.get_config().to_dict()
  values['mesh'] |= {'data': -1, 'fsdp': -1}
  with pytest.raises(ConfigError, match='one axis'):
    from_config_dict(values)


# Rows of the layers, from the top; a module may import from its own row's package and below.
LAYERS = (
  ('ttt_jax/cli', 'benchmarks'),
  ('ttt_jax/planning', 'ttt_jax/serving'),
  ('ttt_jax/evaluation', 'ttt_jax/inspection'),
  ('ttt_jax/training', 'ttt_jax/sampling', 'ttt_jax/conversion'),
  ('data_pipelines/preparing', 'data_pipelines/little_world'),
  ('data_pipelines/converting', 'data_pipelines/stream'),
  ('data_pipelines/reading',),
  (
    *(f'ttt_jax/{name}.py' for name in ('checkpoint', 'parameters', 'description', 'resuming')),
    *('data_pipelines', 'ttt_jax/pages'),
  ),
  ('ttt_jax/model', 'ttt_jax/losses.py', 'ttt_jax/assets.py'),
  ('ttt_jax/sharding.py',),
  ('ttt_jax/ops', 'ttt_jax/diffusion', 'ttt_jax/codecs'),
  ('ttt_jax',),
)


def _place(module: str) -> tuple[int, str] | None:
  path = module.replace('.', '/')
  for row, parts in enumerate(LAYERS):
    for part in parts:
      stem = part.removesuffix('.py')
      if path == stem or path.startswith(stem + '/'):
        return row, part
  return None


def _imports(path: pathlib.Path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        is_module = (ROOT / (full.replace('.', '/') + '.py')).exists()
        is_package = (ROOT / full.replace('.', '/')).is_dir()
        yield full if is_module or is_package else node.module


# May import torch; imported by name alone, when asked for.
PLUGINS = ('ttt_jax.codecs.plugins', 'ttt_jax.evaluation.recognisers.plugins')
EXPORTED = ROOT / 'ttt_jax' / 'conversion' / 'exported'  # never imported: copied into exports


def _modules():
  for top in ('ttt_jax', 'data_pipelines', 'configs'):
    yield from sorted(p for p in (ROOT / top).rglob('*.py') if p.parent != EXPORTED)


@pytest.mark.parametrize('path', EXPORTED.glob('*.py'), ids=lambda p: p.name)
def test_exported_files_stand_alone(path):
  for imported in _imports(path):
    own = imported in ('configuration_ttt', 'None') or imported.startswith('configuration_ttt.')
    assert own or imported.split('.')[0] in ('torch', 'transformers', 'types', 'typing')


@pytest.mark.parametrize('path', _modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
  name = str(path.relative_to(ROOT).with_suffix('')).replace('/', '.')
  own = _place(name)
  for imported in _imports(path):
    optional = name.startswith(PLUGINS)
    assert optional or imported.split('.')[0] not in ('torch', 'transformers'), imported
    assert optional or not imported.startswith(PLUGINS), imported
    if name.startswith('configs.'):
      allowed = ('ml_collections', 'configs.base', 'configs.recipe', 'json', 'pathlib')
      assert imported in allowed, imported
      continue
    if name.startswith('data_pipelines.'):
      allowed = 'ttt_jax.model ttt_jax.losses ttt_jax.sharding ttt_jax.checkpoint'
      assert not imported.startswith(tuple(allowed.split())), imported
    place = _place(imported)
    if place is None:
      continue
    lower = place[0] > own[0]
    siblings = place[0] == own[0] and ('.py' in own[1] or place[1] == own[1])
    assert lower or siblings, f'{name} imports {imported}, which is not below it'
