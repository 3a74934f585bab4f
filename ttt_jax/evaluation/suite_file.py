"""Reads suites from YAML, and refuses what no suite has.

docs/evaluation.md has every key. Tasks take what they do not say themselves from the top of
the file, where `data`, `split`, `sampling` and `recogniser` may stand for all of them.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.evaluation import suite as suite_lib

STANDARD = pathlib.Path(__file__).with_name('standard.yaml')


def standard(data: str, recogniser: str = '') -> suite_lib.Suite:
  """The built-in suite: every task that the records of a data set name."""
  return read(STANDARD, data=data, recogniser=recogniser)


def read(
  path: str | pathlib.Path, data: str = '', split: str = '', recogniser: str = ''
) -> suite_lib.Suite:
  """Reads a suite.

  Args:
    path: of the file.
    data: data set, or several with commas between, of tasks that name none, in place of those
      at the top of the file; relative to the working directory.
    split: likewise.
    recogniser: likewise.

  Raises:
    SuiteError: the file cannot be read, a key is unknown, missing or there twice, or a value
      is impossible.
  """
  path = pathlib.Path(path)
  try:
    values = yaml.load(path.read_text(encoding='utf-8'), _Strict)  # noqa: S506, a SafeLoader
  except OSError as error:
    raise suite_lib.SuiteError(f'{path}: cannot be read ({error.strerror})') from error
  except Exception as error:  # beside its own errors, the library raises those of its parts
    raise suite_lib.SuiteError(f'{path}: no YAML: {" ".join(str(error).split())}') from error
  return _Reader(path).suite(values, data, {'split': split, 'recogniser': recogniser})


class _Strict(yaml.SafeLoader):
  """The values of JSON alone, each written out where it stands, and no key twice."""

  def compose_node(self, parent, index):
    if self.check_event(yaml.AliasEvent):  # a few lines of them stand for more than fits
      line = self.peek_event().start_mark.line + 1
      raise yaml.YAMLError(f'line {line}: write the value out: aliases are not read')
    return super().compose_node(parent, index)

  def construct_mapping(self, node, deep=False):
    made, known = super().construct_mapping(node, deep=True), set()
    for name, _ in node.value if len(made) < len(node.value) else ():
      key = self.construct_object(name, deep=True)
      if key in known:
        raise yaml.YAMLError(f'key {key!r} is there twice, line {name.start_mark.line + 1}')
      known.add(key)
    return made


_KINDS = ('null', 'bool', 'int', 'float', 'str', 'seq', 'map')
_Strict.yaml_constructors = {
  tag: make
  for tag, make in yaml.SafeLoader.yaml_constructors.items()
  if tag is None or tag.rpartition(':')[2] in _KINDS
}
_Strict.yaml_implicit_resolvers = {
  first: [pair for pair in pairs if pair[0].rpartition(':')[2] in _KINDS]
  for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Reader:
  """Turns the values of one file into a suite."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def suite(self, values: Any, data: str, given: Mapping[str, str]) -> suite_lib.Suite:
    shared = ('data', 'split', 'sampling', 'recogniser')
    values = dict(self._section(values, '', (*_names(suite_lib.Suite), *shared)))
    common = {name: values.pop(name) for name in shared if name in values}
    if 'data' in common:
      common['data'] = self._folders(common['data'], 'data')
    if data:
      common['data'] = tuple(part.strip() for part in data.split(',') if part.strip())
    common |= {name: value for name, value in given.items() if value}
    tasks = self._list(values.get('tasks'), 'tasks')
    values['tasks'] = tuple(
      self._task(task, f'tasks[{number}]', common) for number, task in enumerate(tasks)
    )
    made = self._make(suite_lib.Suite, values, '')
    self._require(made.seed >= 0, 'seed', made.seed, 'at least 0')
    self._require(made.resamples >= 0, 'resamples', made.resamples, 'at least 0')
    self._require(0 < made.confidence < 1, 'confidence', made.confidence, 'between 0 and 1')
    self._require(0 <= made.tolerance <= 1, 'tolerance', made.tolerance, 'a share')
    names = [task.name.lower() for task in made.tasks]  # some disks know no capitals
    for number, name in enumerate(names):
      self._require(name not in names[:number], f'tasks[{number}].name', name, 'unique')
    return made

  def _task(self, values: Any, key: str, common: Mapping[str, Any]) -> suite_lib.Task:
    values = dict(self._section(values, key, _names(suite_lib.Task)))
    if 'data' in values:
      values['data'] = self._folders(values['data'], f'{key}.data')
    sampling = {}
    for whose, found in ((common, 'sampling'), (values, f'{key}.sampling')):
      names = _names(config_lib.Sampling)
      sampling |= self._section(whose.get('sampling', {}), found, names)
    values = dict(common) | values | {'sampling': sampling}
    metrics = self._list(values.get('metrics'), f'{key}.metrics')
    values['metrics'] = tuple(
      self._metric(metric, f'{key}.metrics[{n}]') for n, metric in enumerate(metrics)
    )
    made = self._make(suite_lib.Task, values, key)
    good = made.name.strip('.') and all(c.isalnum() or c in '.-_' for c in made.name)
    self._require(good, f'{key}.name', made.name, "letters, digits, '.', '-' and '_'")
    self._require(made.limit >= 0, f'{key}.limit', made.limit, 'at least 0')
    titles = [metric.title for metric in made.metrics]
    for number, title in enumerate(titles):
      where, unique = f'{key}.metrics[{number}]', title not in titles[:number]
      if title == suite_lib.LIKELIHOOD:  # its figures have names of their own
        self._require(unique, where, title, 'there once')
      self._require(unique, f'{where}.name', title, 'unique in its task: give it a name')
    return made

  def _metric(self, values: Any, key: str) -> suite_lib.Metric:
    values = {'metric': values} if isinstance(values, str) else values
    values = self._section(values, key, _names(suite_lib.Metric))
    options = values.get('options', ())
    if options:
      options = tuple(self._list(options, f'{key}.options'))
      texts = all(isinstance(option, str) and option.strip() for option in options)
      self._require(texts, f'{key}.options', options, 'texts')
    made = self._make(suite_lib.Metric, {**values, 'options': options}, key)
    known = (*suite_lib.OF_TEXT, suite_lib.LIKELIHOOD)
    near = errors.nearest(made.metric, list(known))
    what = f'one of {", ".join(known)}{near}'
    self._require(made.metric in known, f'{key}.metric', made.metric, what)
    for name, choices in (
      ('of', ('text', 'speech')),
      ('normaliser', suite_lib.NORMALISERS),
      ('match', suite_lib.MATCHES),
    ):
      value = getattr(made, name)
      self._require(value in choices, f'{key}.{name}', value, f'one of {", ".join(choices)}')
    allowed = {'metric'} | (
      {'samples'} if made.metric == suite_lib.LIKELIHOOD else {'of', 'normaliser', 'name'}
    )
    allowed |= {'match', 'options'} if made.metric == 'accuracy' else set()
    for name in values:
      self._require(name in allowed, f'{key}.{name}', values[name], f'not of {made.metric}')
    self._require(made.samples > 0, f'{key}.samples', made.samples, 'above 0')
    fits = (made.match == 'option') == bool(made.options)
    what = "two or more, and only where match is 'option'"
    self._require(fits and len(options) != 1, f'{key}.options', options, what)
    return made

  def _make(self, cls: type, values: Mapping[str, Any], key: str) -> Any:
    """Checks types, and that nothing is missing."""
    for field in dataclasses.fields(cls):
      where = f'{key}.{field.name}'.lstrip('.')
      required = (
        field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
      )
      if field.name not in values:
        if required:
          raise suite_lib.SuiteError(f'{self._path}: missing: {where}')
        continue
      value = values[field.name]
      kinds = {int: int, float: (int, float), str: str, bool: bool}.get(field.type)
      fits = kinds is None or isinstance(value, kinds)
      fits &= not isinstance(value, bool) or kinds in (None, bool)
      if field.name == 'where':
        fits = isinstance(value, dict) and all(isinstance(name, str) for name in value)
      if field.type is str:
        # A metric may have no name of its own.
        fits = fits and bool(value.strip() or cls is suite_lib.Metric)
      name = getattr(field.type, '__name__', 'Mapping')
      self._require(fits, where, value, _WANTED.get(name, 'a section of keys'))
    return cls(**values)

  def _folders(self, value: Any, key: str) -> tuple[str, ...]:
    """Paths relative to the file."""
    folders = [value] if isinstance(value, str) else self._list(value, key)
    fits = all(isinstance(folder, str) and folder.strip() for folder in folders)
    self._require(fits, key, value, 'folders')
    return tuple(str(self._path.parent / folder) for folder in folders)

  def _section(self, value: Any, key: str, names: tuple[str, ...]) -> Mapping[str, Any]:
    self._require(isinstance(value, dict), key or 'the file', value, 'a section of keys')
    for name in value:
      if name not in names:
        where, near = f'{key}.{name}'.lstrip('.'), errors.nearest(str(name), list(names))
        raise suite_lib.SuiteError(f'{self._path}: no such key: {where}{near}')
    return value

  def _list(self, value: Any, key: str) -> list[Any]:
    fits = isinstance(value, list) and bool(value)
    self._require(fits, key, value, 'a list of one or more')
    return value

  def _require(self, condition: bool, key: str, value: Any, what: str) -> None:
    if not condition:
      raise suite_lib.SuiteError(f'{self._path}: {key} is {value!r:.200}, but must be {what}')


_WANTED = {'int': 'a whole number', 'float': 'a number', 'str': 'text', 'bool': 'true or false'}


def _names(cls: type) -> tuple[str, ...]:
  return tuple(field.name for field in dataclasses.fields(cls))
