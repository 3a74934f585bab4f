"""A page as a browser reads it."""

import html.parser


class Page(html.parser.HTMLParser):
  """Checks that elements are closed in turn, and keeps addresses, ids and text."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.addresses, self.ids, self.texts, self.tags = [], [], [], [], []
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    for name, value in attrs:
      if name in ('src', 'href', 'srcset', 'data', 'action', 'poster', 'xlink:href'):
        self.addresses.append((tag, name, value))
      if name == 'id':
        self.ids.append(value)
    if tag not in ('meta', 'img', 'br'):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.texts.append(data)

  @property
  def text(self) -> str:
    return ' '.join(' '.join(self.texts).split())
