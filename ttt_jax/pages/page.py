"""The frame of a page: one HTML file that asks for nothing, dark or light, of any width."""

import pathlib
from collections.abc import Mapping

from ttt_jax.pages import markup
from ttt_jax.pages.markup import element

# Whoever opens the file loads nothing from anywhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

Sections = Mapping[str, tuple[str, markup.Html]]


def write(
  path: str | pathlib.Path,
  *,
  name: str,
  title: str,
  lead: str,
  facts: Mapping[str, str],
  sections: Sections,
  note: str | None = None,
) -> None:
  """Writes a page.

  Args:
    path: of the file, which is replaced.
    name: of the page, as a browser shows it.
    title: its heading.
    lead: what it is about.
    facts: what it was made from.
    sections: title and content by a word for links.
    note: what a reader must know first.

  Raises:
    OSError: the file cannot be written.
  """
  header = element(
    'header',
    element('p', 'ttt_jax', class_='brand'),
    element('h1', title),
    element('p', lead, class_='lead'),
    element('p', element('strong', 'Note. '), note, class_='note') if note else '',
    markup.definitions(facts),
    _links(sections),
  )
  parts = (_section(word, *section) for word, section in sections.items())
  skip = element('a', 'Skip to the content', href='#main', class_='skip')
  body = element('body', skip, header, element('main', *parts, id='main'))
  html = element('html', _head(name), body, lang='en')
  pathlib.Path(path).write_text(f'<!doctype html>\n{html}\n', encoding='utf-8')


def _head(name: str) -> markup.Html:
  style = pathlib.Path(__file__).with_suffix('.css').read_text(encoding='utf-8')
  return element(
    'head',
    element('meta', charset='utf-8'),
    element('meta', name='viewport', content='width=device-width, initial-scale=1'),
    element('meta', http_equiv='Content-Security-Policy', content=_POLICY),
    element('title', name),
    element('style', markup.Html(style)),
  )


def _links(sections: Sections) -> markup.Html:
  links = [element('a', title, href=f'#{word}') for word, (title, _) in sections.items()]
  return element('nav', *links, aria_label='Sections')


def _section(word: str, title: str, content: markup.Html) -> markup.Html:
  heading = element('h2', element('a', title, href=f'#{word}'))
  return element('section', heading, content, id=word)
