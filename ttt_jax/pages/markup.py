"""HTML built from elements, so that text is always escaped, whatever it holds."""

import html
import re
from collections.abc import Iterable, Sequence

# Control characters; what turns the direction of writing around, also outside its own text;
# and halves of surrogate pairs, which no file can hold.
_UNPRINTABLE = re.compile(
  '[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)

_VOID = frozenset({'meta', 'img', 'br'})


class Html(str):
  """Text that is HTML already, and is not escaped again."""

  __slots__ = ()


def printable(text: str) -> str:
  """`text` with a picture in the place of what would not be seen, or would do something."""
  return _UNPRINTABLE.sub(_stand_in, text)


def _stand_in(found: re.Match) -> str:
  code = ord(found[0])
  if code == 0x7F:
    return '\u2421'
  return chr(0x2400 + code) if code < 0x20 else '\ufffd'


def element(name: str, /, *children: str, **attributes: str | float | bool | None) -> Html:
  """One element.

  Args:
    name: of the tag.
    *children: `Html` is taken as it is; other text is escaped.
    **attributes: `class_` is written as class, `aria_label` as aria-label; True stands for
      an attribute without a value, and those that are None or False are left out.
  """
  written = [name]
  for key, value in attributes.items():
    if value is None or value is False:
      continue
    key = key.rstrip('_').replace('_', '-')
    written.append(key if value is True else f'{key}="{html.escape(printable(str(value)))}"')
  opening = f'<{" ".join(written)}>'
  return Html(opening if name in _VOID else f'{opening}{join(*children)}</{name}>')


def join(*children: str) -> Html:
  """Pieces one after the other; what is not `Html` is escaped."""
  return Html(''.join(c if isinstance(c, Html) else _escaped(c) for c in children))


def _escaped(text: str) -> str:
  return html.escape(printable(text), quote=False)


def definitions(pairs: dict[str, str]) -> Html:
  """A list of names and what they stand for."""
  rows = [
    element('div', element('dt', name), element('dd', value)) for name, value in pairs.items()
  ]
  return element('dl', *rows)


def scrolling(label: str, *children: str) -> Html:
  """A box that wide things scroll in, by keyboard as well."""
  return element(
    'div', *children, class_='scroll', role='region', tabindex='0', aria_label=label
  )


def table(
  headings: Sequence[str], rows: Iterable[Sequence[str]], label: str, kind: str | None = None
) -> Html:
  """A table that scrolls where it is too wide; the first cell of a line names it.

  Args:
    headings: of the columns.
    rows: the cells of each line.
    label: what it is a table of.
    kind: its class.
  """
  head = element('tr', *(element('th', text, scope='col') for text in headings))
  body = [
    element('tr', element('th', first, scope='row'), *(element('td', cell) for cell in cells))
    for first, *cells in rows
  ]
  grid = element('table', element('thead', head), element('tbody', *body), class_=kind)
  return scrolling(label, grid)


def swatches(pairs: dict[str, str]) -> Html:
  """A legend: for each class of colour, what it means."""
  items = [
    element('li', element('i', class_=f'swatch {kind}'), text) for kind, text in pairs.items()
  ]
  return element('ul', *items, class_='legend')
