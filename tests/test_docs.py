"""The pages that people read: their links lead somewhere, and nothing of a merge is left."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted(ROOT.glob('docs/*.md')), *sorted(ROOT.glob('*/README.md'))]


def without_code(text: str) -> str:
  return re.sub(r'(?ms)^```.*?^```$|`[^`\n]+`', '', text)


def anchors(page: pathlib.Path) -> set[str]:
  """As GitHub names its headings."""
  headings = re.findall(r'(?m)^#+ (.*)$', re.sub(r'(?ms)^```.*?^```$', '', page.read_text()))
  return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in headings}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  for target in re.findall(r'\]\(([^)\s]+)\)', without_code(page.read_text())):
    if '://' in target:
      continue
    name, _, anchor = target.partition('#')
    other = page.parent / name if name else page
    assert other.exists(), f'{target}: no such file'
    assert not anchor or anchor in anchors(other), f'{target}: no such heading'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
  names = re.findall(
    r'`((?:ttt_jax|data_pipelines|benchmarks|configs|launch|tests|docs)/[^`]*)`',
    page.read_text(),
  )
  for name in names:
    for path in expanded(name):
      assert any(ROOT.glob(path)), f'{name}: no such file'


def expanded(name: str) -> list[str]:
  """Paths that a name such as `a/{b,c}.py` stands for; an argument of it is no path."""
  found = re.match(r'(.*)\{(.*)\}(.*)', path := re.split('[ :]', name)[0])
  return [found[1] + each + found[3] for each in found[2].split(',')] if found else [path]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_merge_is_left(page):
  assert not re.search(r'(?m)^(<{7} |={7}$|>{7} )', page.read_text())
