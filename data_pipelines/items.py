"""What travels between the reading of files and the writing of records.

    pieces of files --read--> items --convert--> records --write--> shards

Each of the two steps may reject what it meets; a rejection travels on in the place of what it
rejects, so that nothing is lost on the way and the writer can put it into quarantine.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from data_pipelines import records


class Place(NamedTuple):
  """Where something was read.

  Attributes:
    path: of the file.
    line: of the file, counted from 1; in a table, the row; 0 is the file as a whole.
  """

  path: str
  line: int

  def __str__(self) -> str:
    return f'{self.path}:{self.line}' if self.line else self.path


class Item(NamedTuple):
  """One thing that was read and is to become one record or several.

  Attributes:
    key: unique among all items of a data set, and the same whenever it is read.
    place: for messages.
    content: its JSON object.
    about: plain JSON values that every record made of it carries.
  """

  key: str
  place: Place
  content: dict[str, Any]
  about: dict[str, Any]


class Rejected(NamedTuple):
  """What cannot become a record.

  Attributes:
    place: where it stands.
    reason: in one sentence, and what to do about it.
    excerpt: its beginning, for people.
  """

  place: Place
  reason: str
  excerpt: str


# Takes many items at once, so that a codec may work on clips together; keeps their order.
Convert = Callable[[Iterable[Item | Rejected]], Iterator[records.Record | Rejected]]
