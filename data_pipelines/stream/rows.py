"""Rows of packed, corrupted documents: row = f(config, seed, index), and nothing else.

The rows are numbered from the first of the run to the last, so that whoever asks for one,
and when, gets the same. What chance decides about a document follows from its place in the
sequence of its data set, which is one of a record and an epoch.
"""

from collections.abc import Sequence

import numpy as np

from data_pipelines import records
from data_pipelines.stream import plan as plan_lib
from ttt_jax import batch as batch_lib
from ttt_jax import chat
from ttt_jax import config as config_lib
from ttt_jax.diffusion import corruption, two_stream
from ttt_jax.diffusion import laid as laid_lib

_GOLDEN = (5**0.5 - 1) / 2


class Rows:
  """The endless list of rows of one or several data sets.

  Attributes:
    plan: which records each row holds.
  """

  def __init__(
    self,
    sources: Sequence[records.Source],
    data: config_lib.Data,
    mask_config: config_lib.Mask,
    objective: config_lib.Objective,
    seed: int,
  ):
    """Opens the list; plans nothing yet.

    Raises:
      DataError: none of the records of a data set fits into a row.
    """
    self.plan = plan_lib.Plan(sources, data, mask_config, objective, seed)
    self._kept = ', '.join(dict.fromkeys(str(source.cache) for source in sources))
    self._documents = [source.documents for source in sources]
    self._vocabulary = sources[0].assets.vocabulary
    self._data, self._mask, self._objective = data, mask_config, objective
    numbers = range(len(sources))
    self._keys = [plan_lib.key(plan_lib.DOCUMENT, seed, number) for number in numbers]
    self._time = np.random.default_rng([seed, plan_lib.TIME, 0, 0]).random()

  def __getitem__(self, index: int) -> batch_lib.Batch:
    """Row `index`, its arrays `[L]` and scalars.

    Raises:
      DataError: a record cannot be read, or is not what was planned with.
    """
    laid = [self.lay(document, draws) for document, draws in self.read(index)]
    if sum(len(each.inputs) for each in laid) > self._data.row_length:
      raise records.DataError(
        f'row {index}: its records are longer than {self._kept} says: delete it'
      )
    return pack(laid, self._data.row_length, self._objective)

  def read(self, index: int) -> list[tuple[chat.Document, corruption.Draws]]:
    """The documents of row `index`, cut as planned, and what chance decides about each."""
    number, row = self.plan.locate(index)
    window = self.plan.window(number)
    out = []
    for at in range(window.offsets[row], window.offsets[row + 1]):
      which, place = int(window.sets[at]), int(window.places[at])
      document = self._documents[which][int(window.records[at])]
      if window.cuts[at]:
        document = corruption.truncate(document, window.cuts[at])
      # Neighbours get far times: any stretch of the stream covers [0, 1] evenly.
      time = (self._time + (window.first + at) * _GOLDEN) % 1
      out.append((document, self._draw(which, place, document, time)))
    return out

  def lay(self, document: chat.Document, draws: corruption.Draws) -> laid_lib.Laid:
    """A document, masked as chance decided, as it lies in a row."""
    how = self._objective, self._vocabulary
    if self._objective.streams == 2:
      return two_stream.corrupt(document, draws, self._mask, *how)
    corrupted = corruption.corrupt(document, draws, *how)
    return laid_lib.one_stream(document, corrupted, self._mask, self._vocabulary)

  def _numbers(self, document: chat.Document) -> int:
    """How many numbers its masks are drawn from."""
    if self._objective.streams == 1:
      return len(document.tokens)
    block = self._mask.group_size
    whole, _ = two_stream.copied_lengths(document, block, self._vocabulary)
    return whole * self._objective.copies

  def _draw(
    self, which: int, place: int, document: chat.Document, time: float
  ) -> corruption.Draws:
    """What chance decides about the document at `place` of the sequence of a data set."""
    philox = np.random.Philox(key=self._keys[which], counter=[0, place, 0, 0])
    rng = np.random.Generator(philox)
    banom, ppm, kept, dropped = rng.random(4)
    spans = int(document.responses.sum())
    clean = banom < self._objective.banom
    return corruption.Draws(
      time=time,
      uniforms=rng.random(self._numbers(document)),
      banom=clean,
      keep=int(kept * spans) if ppm < self._objective.ppm else 0,
      # Without its condition a document trains audio alone: it must have some to train.
      dropped=dropped < self._objective.condition_dropout and not clean and spans > 0,
    )


def pack(
  documents: Sequence[laid_lib.Laid], row_length: int, objective: config_lib.Objective
) -> batch_lib.Batch:
  """One row of documents, which fit into it."""
  row = batch_lib.empty(row_length, objective.streams)
  start = 0
  for laid in documents:
    here = slice(start, start + len(laid.inputs))
    for name in ('inputs', 'positions', 'targets', 'weights', 'noise'):
      getattr(row, name)[here] = getattr(laid, name)
    seen = laid.kv_end > laid.kv_start  # what is empty stays at 0
    row.kv_start[here] = np.where(seen, start + laid.kv_start, 0)
    row.kv_end[here] = np.where(seen, start + laid.kv_end, 0)
    row.normalizer[...] += 1 if objective.normalization == 'document' else laid.count
    start = here.stop
  return row
