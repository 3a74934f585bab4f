"""How settings are checked: keys that exist, types that fit, values within their range."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

from ttt_jax import errors


class ConfigError(errors.UserError):
  """A setting does not exist, is missing, or has an impossible value."""

  exit_code = errors.FINAL


def require(condition: bool, key: str, value: Any, what: str) -> None:
  """Raises ConfigError, that the key's value must be `what`, unless `condition` holds."""
  if not condition:
    raise ConfigError(f'config.{key} is {value!r}, but must be {what}')


def one_of(key: str, value: Any, options: tuple[str, ...]) -> None:
  """Raises ConfigError unless the key's value is one of `options`."""
  require(value in options, key, value, 'one of ' + ', '.join(map(repr, options)))


def positive(prefix: str, settings: Any, *names: str) -> None:
  """Raises ConfigError unless the named settings of a section are above 0."""
  for name in names:
    value = getattr(settings, name)
    require(value > 0, f'{prefix}.{name}', value, 'above 0')


def require_key(cls: type, path: str) -> None:
  """Raises ConfigError unless there is a key of this path, names with dots between.

  Args:
    cls: dataclass of all settings.
    path: as 'train.steps'.
  """
  prefix = ''
  for name in path.split('.'):
    fields = _fields(cls) if dataclasses.is_dataclass(cls) else {}
    _require_name(name, fields, prefix)
    cls, prefix = fields[name], f'{prefix}{name}.'


def _fields(cls: type) -> dict[str, Any]:
  return {field.name: field.type for field in dataclasses.fields(cls)}


def _require_name(name: str, fields: Mapping[str, Any], prefix: str) -> None:
  if name not in fields:
    there = f' (there is: {", ".join(fields)})' if fields else ''
    hint = errors.nearest(name, list(fields)) or there
    raise ConfigError(f'no such key: config.{prefix}{name}{hint}')


def build(cls: type, values: Mapping[str, Any], prefix: str = '') -> Any:
  """A dataclass, and those within it, from nested mappings.

  Raises:
    ConfigError: names the key and, where it is unknown, the nearest one that exists.
  """
  require(isinstance(values, Mapping), prefix.rstrip('.'), values, 'a section of keys')
  fields = _fields(cls)
  for key in values:
    _require_name(key, fields, prefix)
  missing = [name for name in fields if name not in values]
  if missing:
    raise ConfigError(f'missing: config.{prefix}{missing[0]} (see configs/base.py)')
  built = {}
  for name, kind in fields.items():
    value = values[name]
    if dataclasses.is_dataclass(kind):
      built[name] = build(kind, value, f'{prefix}{name}.')
    else:
      built[name] = _convert(value, kind, prefix + name)
  return cls(**built)


def _convert(value: Any, kind: Any, key: str) -> Any:
  if isinstance(kind, types.GenericAlias):
    parts = kind.__args__
    ok = isinstance(value, (tuple, list))
    if parts[-1] is Ellipsis:
      require(ok, key, value, 'a tuple')
      return tuple(_convert(v, parts[0], key) for v in value)
    ok = ok and len(value) == len(parts)
    require(ok, key, value, f'{len(parts)} values')
    return tuple(_convert(v, part, key) for v, part in zip(value, parts))
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    require(abs(value) < 2**1000, key, value, 'less')
    return float(value)
  ok = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
  require(ok, key, value, f'of type {kind.__name__}')
  return value
