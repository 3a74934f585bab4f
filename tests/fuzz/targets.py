"""Every reader of files and requests that come from outside, by name."""

import inspect
import pathlib
from types import ModuleType

import of_models
import of_records
import of_requests
from target import Make

CORPUS = pathlib.Path(__file__).with_name('corpus')


def _of(module: ModuleType) -> dict[str, Make]:
  made = inspect.getmembers(module, inspect.isfunction)
  own = {name: make for name, make in made if make.__module__ == module.__name__}
  return {name: make for name, make in own.items() if not name.startswith('_')}


# Each makes its target in a folder of its own.
TARGETS: dict[str, Make] = {
  name: make
  for module in (of_records, of_models, of_requests)
  for name, make in _of(module).items()
}


def corpus(name: str) -> list[bytes]:
  """Inputs that found something once: a defect, or a way that no seed goes."""
  return [path.read_bytes() for path in sorted((CORPUS / name).glob('*'))]
