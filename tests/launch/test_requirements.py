"""What is installed: bounds in setup.py, and the locks of the quickstart and of pods."""

import pathlib
import re
import runpy
from importlib import metadata

import pytest
import setuptools
from packaging import requirements, specifiers, utils, version

ROOT = pathlib.Path(__file__).parents[2]
LOCKS = {'speech': ['linux', 'darwin'], 'tpu': ['linux']}  # extras, and where they are for


@pytest.fixture(scope='module')
def setup():
  """The arguments of setup()."""
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(setuptools, 'setup', lambda **values: found.update(values))
    runpy.run_path(str(ROOT / 'setup.py'))
  return found


def locked(extra):
  """The entries of a lock: requirement, and how many hashes it has."""
  text = (ROOT / f'launch/{extra}.lock').read_text(encoding='utf-8').replace('\\\n', ' ')
  lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
  entries = [re.split(r'\s+--hash=', line) for line in lines]
  assert all(re.fullmatch(r'sha256:[0-9a-f]{64}', h.strip()) for e in entries for h in e[1:])
  return [(requirements.Requirement(entry[0]), len(entry) - 1) for entry in entries]


def test_every_requirement_has_a_floor_and_a_ceiling(setup):
  groups = [setup['install_requires'], *setup['extras_require'].values()]
  for text in (text for group in groups for text in group):
    operators = {one.operator for one in requirements.Requirement(text).specifier}
    assert operators == {'=='} or operators == {'>=', '<'}, text


def test_pythons_are_told_as_they_are_taken(setup):
  taken = specifiers.SpecifierSet(setup['python_requires'])
  minors = [f'3.{minor}' for minor in range(30) if f'3.{minor}' in taken]
  head = 'Programming Language :: Python :: '
  told = [text.removeprefix(head) for text in setup['classifiers'] if text.startswith(head)]
  assert told == ['3 :: Only', *minors]


def test_what_plans_need_is_an_extra_that_tests_have_too(setup):
  plan = setup['extras_require']['plan']
  assert {requirements.Requirement(text).name for text in plan} == {'libtpu'}
  assert set(plan) <= set(setup['extras_require']['test'])


COMPILES = {'sys_platform': 'linux', 'platform_machine': 'x86_64'}  # wherever this test runs


def test_plans_are_compiled_by_the_version_that_the_jax_here_wants(setup):
  wanted = [
    one.specifier
    for one in map(requirements.Requirement, metadata.requires('jax'))
    if one.name == 'libtpu' and one.marker.evaluate(COMPILES | {'extra': 'tpu'})
  ]
  plan = map(requirements.Requirement, setup['extras_require']['plan'])
  assert [one.specifier for one in plan if one.marker.evaluate(COMPILES)] == wanted


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
def test_every_python_has_one_compiler_of_plans(setup, python):
  place = COMPILES | {'python_version': python}
  plan = [requirements.Requirement(text) for text in setup['extras_require']['plan']]
  assert sum(one.marker.evaluate(place) for one in plan) == 1
  assert not any(one.marker.evaluate(place | {'sys_platform': 'darwin'}) for one in plan)


@pytest.mark.parametrize('extra', LOCKS)
def test_a_lock_has_hashes_and_names_no_place(extra):
  assert all(hashes and not entry.url for entry, hashes in locked(extra))
  text = (ROOT / f'launch/{extra}.lock').read_text(encoding='utf-8')
  assert 'http' not in text.replace('httpx', '').replace('httpcore', '')


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
@pytest.mark.parametrize(
  'extra,system', [(extra, system) for extra, systems in LOCKS.items() for system in systems]
)
def test_a_lock_has_what_is_needed_once(setup, python, extra, system):
  machine = {'linux': 'x86_64', 'darwin': 'arm64'}[system]
  place = {
    'python_version': python,
    'python_full_version': f'{python}.1',
    'sys_platform': system,
    'platform_machine': machine,
    'platform_system': system.capitalize(),
    'implementation_name': 'cpython',
    'platform_python_implementation': 'CPython',
  }
  pinned = {}
  for entry, _ in locked(extra):
    if entry.marker is None or entry.marker.evaluate(place):
      name = utils.canonicalize_name(entry.name)
      assert name not in pinned
      (pin,) = entry.specifier
      assert pin.operator == '=='
      pinned[name] = version.Version(pin.version)
  for text in setup['install_requires'] + setup['extras_require'][extra]:
    wanted = requirements.Requirement(text)
    assert pinned[utils.canonicalize_name(wanted.name)] in wanted.specifier, text
