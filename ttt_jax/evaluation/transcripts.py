"""What was heard, laid against what should have been said, word by word."""

from typing import NamedTuple

from ttt_jax.pages import markup
from ttt_jax.pages.markup import element


class Pair(NamedTuple):
  """A word of the reference and what was heard in its place; '' stands for no word."""

  reference: str
  heard: str


def align(reference: str, heard: str) -> list[Pair]:
  """The pairing of words with the fewest mistakes; mistakes are pairs that differ."""
  rows, columns = reference.split(), heard.split()
  cost = [[i + j for j in range(len(columns) + 1)] for i in range(len(rows) + 1)]
  for i, row in enumerate(rows):
    for j, column in enumerate(columns):
      changed = cost[i][j] + (row != column)
      cost[i + 1][j + 1] = min(changed, cost[i][j + 1] + 1, cost[i + 1][j] + 1)
  pairs, i, j = [], len(rows), len(columns)
  while i or j:
    if i and j and cost[i][j] == cost[i - 1][j - 1] + (rows[i - 1] != columns[j - 1]):
      down, right = 1, 1
    elif i and cost[i][j] == cost[i - 1][j] + 1:
      down, right = 1, 0
    else:
      down, right = 0, 1
    i, j = i - down, j - right
    pairs.append(Pair(rows[i] if down else '', columns[j] if right else ''))
  return pairs[::-1]


def mistakes(reference: str, heard: str) -> int:
  """Words substituted, left out or added."""
  return sum(pair.reference != pair.heard for pair in align(reference, heard))


def marked(reference: str, heard: str) -> markup.Html:
  """`heard`, with what is wrong in it inserted and what it lacks struck out."""
  pieces = []
  for pair in align(reference, heard):
    if pair.reference == pair.heard:
      pieces.append(markup.join(pair.heard))
      continue
    if pair.reference:
      pieces.append(element('del', pair.reference))
    if pair.heard:
      pieces.append(element('ins', pair.heard))
  return markup.Html(' '.join(pieces)) if pieces else element('em', 'nothing')


def score(reference: str, heard: str) -> markup.Html:
  """How much of it is wrong, as a badge."""
  wrong = mistakes(reference, heard)
  text = f'{wrong} mistake{"s" if wrong > 1 else ""}' if wrong else 'all right'
  return element('span', text, class_='badge bad' if wrong else 'badge good')
