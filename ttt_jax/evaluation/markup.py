"""HTML built from elements, so that text is always escaped."""

import html

_VOID = frozenset({'meta', 'img', 'br'})


class Html(str):
  """Text that is HTML already, and is not escaped again."""

  __slots__ = ()


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
    written.append(key if value is True else f'{key}="{html.escape(str(value))}"')
  opening = f'<{" ".join(written)}>'
  return Html(opening if name in _VOID else f'{opening}{join(*children)}</{name}>')


def join(*children: str) -> Html:
  """Pieces one after the other; what is not `Html` is escaped."""
  pieces = (c if isinstance(c, Html) else html.escape(c, quote=False) for c in children)
  return Html(''.join(pieces))


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


def swatches(pairs: dict[str, str]) -> Html:
  """A legend: for each class of colour, what it means."""
  items = [
    element('li', element('i', class_=f'swatch {kind}'), text) for kind, text in pairs.items()
  ]
  return element('ul', *items, class_='legend')
