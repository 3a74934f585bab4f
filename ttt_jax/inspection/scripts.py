"""Which scripts a text is written in, told by the names that Unicode gives to its letters."""

import collections
import functools
import unicodedata

# First words of names that say nothing without the second.
_VAGUE = ('OLD', 'NEW', 'TAI', 'OL', 'LINEAR')


@functools.cache
def script(character: str) -> str:
  """The script of a letter, such as 'Latin' or 'Han'; '' for all that is no letter of one.

  Full width, ligatures and styles for mathematics count as the letters that they stand for.
  """
  character = unicodedata.normalize('NFKC', character)[0]
  category = unicodedata.category(character)
  if category[0] != 'L' or category == 'Lm':  # modifiers are shared by several scripts
    return ''
  words = unicodedata.name(character, '').split()
  if not words:
    return ''
  if words[0] == 'CJK':
    return 'Han'
  return ' '.join(words[: 2 if words[0] in _VAGUE else 1]).title()


def letters(text: str) -> collections.Counter[str]:
  """How many letters of which script `text` has."""
  counts = collections.Counter()
  for character, count in collections.Counter(text).items():
    if name := script(character):
      counts[name] += count
  return counts
