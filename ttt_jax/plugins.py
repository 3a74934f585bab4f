"""Finds classes by the names of their kinds: built in, or plug-ins of other distributions.

A plug-in is an entry point: its group says what it is of, its name is the kind, its value
'module:Class'.
"""

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

from ttt_jax import errors


class Kinds(NamedTuple):
  """The kinds of one thing.

  Attributes:
    group: of the entry points.
    base: class of which all are subclasses, each with its `kind`.
    error: is raised for a kind that cannot be used.
    built_in: 'module:class' by kind. Named, not imported, so that using one does not need the
      libraries of all the others.
    extras: what installs the libraries of those that need more than the package does.
  """

  group: str
  base: type
  error: type[errors.UserError]
  built_in: Mapping[str, str]
  extras: Mapping[str, str]

  def known(self) -> dict[str, str]:
    """Of each kind where it comes from: 'built in', or a distribution and its class."""
    return dict.fromkeys(self.built_in, 'built in') | {
      point.name: _source(point) for point in metadata.entry_points(group=self.group)
    }

  def find(self, kind: str) -> type:
    """The class of a kind.

    Raises:
      UserError: `error`; the kind is unknown, two plug-ins claim it or one claims a built-in,
        its class cannot be imported, or is none of this kind.
    """
    points = list(metadata.entry_points(group=self.group, name=kind))
    sources = ', '.join(_source(point) for point in points)
    if points and kind in self.built_in:
      raise self.error(
        f'kind {kind!r} is built in, but a plug-in claims it: {sources}; uninstall that'
      )
    if len(points) > 1:
      raise self.error(f'kind {kind!r} is claimed by two plug-ins: {sources}; keep one')
    if not points and kind not in self.built_in:
      raise self.error(
        f'unknown kind {kind!r}; known: {", ".join(sorted(self.known()))}; if it is of a '
        f'plug-in, install the distribution that has the entry point {kind!r} of group '
        f'{self.group!r}'
      )
    where = points[0].value if points else self.built_in[kind]
    try:
      found = _imported(where)
    except Exception as error:  # whatever a plug-in does wrong
      mend = self.extras.get(kind, f'install what {sources or "it"} needs, or mend it')
      raise self.error(
        f'kind {kind!r} cannot be used: {where} cannot be imported '
        f'({type(error).__name__}: {error}); {mend}'
      ) from error
    if not (isinstance(found, type) and issubclass(found, self.base)):
      raise self.error(f'kind {kind!r}: {where} is no subclass of {self.base.__name__}')
    if found.kind != kind:
      raise self.error(f'kind {kind!r}: {where} says that its kind is {found.kind!r}')
    return found


def _source(point: metadata.EntryPoint) -> str:
  owner = point.dist.name if point.dist else 'an unnamed distribution'
  return f'{owner} ({point.value})'


def _imported(where: str):
  module, name = where.split(':')
  return getattr(importlib.import_module(module), name)
