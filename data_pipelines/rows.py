"""Rows of packed, corrupted documents: row = f(config, seed, index), and nothing else.

An epoch visits every record once, in an order and with truncations drawn from (seed,
epoch); its rows are planned ahead. The rows of all epochs follow one another in one endless
list, so that a row has one number, whoever asks for it and when.
"""

import bisect
import threading

import numpy as np
from absl import logging

from data_pipelines import cache, packing, records
from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import mask
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.diffusion import corruption

# Purposes of random numbers: part of the seed, so that none repeats another's draws.
_ORDER, _TRUNCATION, _TIME, _DOCUMENT = range(4)

_GOLDEN = (5**0.5 - 1) / 2


class Rows:
  """The endless list of rows of one split."""

  def __init__(
    self,
    source: records.Source,
    data: config_lib.Data,
    mask_config: config_lib.Mask,
    objective: config_lib.Objective,
    seed: int,
  ):
    """Opens the list; plans nothing yet.

    Raises:
      DataError: no record fits into a row.
    """
    self._source, self._data, self._mask = source, data, mask_config
    self._objective, self._seed = objective, seed
    self._epochs: dict[int, tuple[packing.Rows, np.ndarray]] = {}  # the latest few
    self._ends: list[int] = []  # ends[e]: rows of epochs 0 ... e
    self._lock = threading.RLock()  # rows are made by several threads
    lengths = source.shapes.lengths
    self.too_long = int((lengths > data.row_length).sum())
    if self.too_long == len(lengths):
      raise records.DataError(
        f'{source.directory}: none of the {len(lengths)} records of {source.split!r} fits '
        f'into data.row_length={data.row_length} tokens'
      )
    if self.too_long:
      logging.warning(
        '%s: %d of %d records are longer than data.row_length=%d and are left out (longest %d)',
        source.directory,
        self.too_long,
        len(lengths),
        data.row_length,
        lengths.max(),
      )

  def plan(self, epoch: int) -> packing.Rows:
    """The rows of one epoch, as record numbers."""
    return self._epoch(epoch)[0]

  def locate(self, index: int) -> tuple[int, int]:
    """Epoch, and row within it, of row `index` of the endless list."""
    with self._lock:
      while not self._ends or self._ends[-1] <= index:
        before = self._ends[-1] if self._ends else 0
        self._ends.append(before + len(self.plan(len(self._ends))))
      epoch = bisect.bisect_right(self._ends, index)
      return epoch, index - (self._ends[epoch - 1] if epoch else 0)

  def __getitem__(self, index: int) -> batch_lib.Batch:
    """Row `index`, its arrays `[L]` and scalars."""
    epoch, row = self.locate(index)
    plan, cut = self._epoch(epoch)
    first, last = plan.offsets[row : row + 2]
    offset = np.random.default_rng([self._seed, epoch, _TIME]).random()
    vocabulary, documents = self._source.assets.vocabulary, []
    for place in range(first, last):
      number = int(plan.records[place])
      document = self._source[number].document
      if cut[number]:
        document = corruption.truncate(document, cut[number])
      # Neighbours in the plan get far times: any stretch of it covers [0, 1] evenly.
      time = (offset + place * _GOLDEN) % 1
      draws = self._draw(epoch, number, document, time)
      corrupted = corruption.corrupt(document, draws, self._objective, vocabulary)
      documents.append((document, corrupted))
    return pack(documents, self._data.row_length, self._mask, self._objective, vocabulary)

  def _epoch(self, epoch: int) -> tuple[packing.Rows, np.ndarray]:
    """The plan of an epoch, and the length to which each record is cut in it (0: whole)."""
    with self._lock:
      if epoch not in self._epochs:
        if len(self._epochs) > 3:
          self._epochs.pop(next(iter(self._epochs)))
        self._epochs[epoch] = self._plan_epoch(epoch)
      return self._epochs[epoch]

  def _plan_epoch(self, epoch: int) -> tuple[packing.Rows, np.ndarray]:
    shapes, data = self._source.shapes, self._data
    rng = np.random.default_rng([self._seed, epoch, _TRUNCATION])
    draws = rng.random((len(shapes.lengths), 2))
    cut = corruption.truncated_length(
      shapes.last_start, shapes.last_codes, draws, self._objective
    )
    # A record that is too long is left out even in the epochs in which it would be cut.
    fits = shapes.lengths <= data.row_length
    lengths = np.where((cut > 0) & fits, cut, shapes.lengths)

    def make():
      order = np.random.default_rng([self._seed, epoch, _ORDER])
      return packing.plan(lengths, data.row_length, data.window, order)._asdict()

    objective = self._objective
    depends = [packing.VERSION, self._source.fingerprint, self._seed, epoch, data.row_length]
    depends += [data.window, objective.sst, objective.sst_range, objective.sst_above]
    arrays = cache.cached(self._source.directory, 'plan', depends, make)
    return packing.Rows(**arrays), cut

  def _draw(self, epoch, number, document, time) -> corruption.Draws:
    rng = np.random.default_rng([self._seed, epoch, _DOCUMENT, number])
    banom, ppm = rng.random(2)
    spans = int(document.responses.sum())
    keep = int(rng.integers(spans)) if spans else 0
    uniforms = rng.random(len(document.tokens))
    dropped = rng.random() < self._objective.condition_dropout
    clean = banom < self._objective.banom
    return corruption.Draws(
      time=time,
      uniforms=uniforms,
      banom=clean,
      keep=keep if ppm < self._objective.ppm else 0,
      # Without its condition a document trains audio alone: it must have some to train.
      dropped=dropped and not clean and spans > 0,
    )


def pack(
  documents: list,
  row_length: int,
  mask_config: config_lib.Mask,
  objective: config_lib.Objective,
  vocabulary: vocabulary_lib.Vocabulary,
) -> batch_lib.Batch:
  """One row from pairs of a document and its corrupted form, which fit into it."""
  row = batch_lib.empty(row_length)
  start = 0
  for document, corrupted in documents:
    end = start + len(document.tokens)
    groups = mask.document_groups(document.tokens, document.spans, mask_config, vocabulary)
    row.inputs[start:end] = corrupted.inputs
    row.positions[start:end] = np.arange(end - start)
    row.kv_start[start:end] = start
    row.kv_end[start:end] = start + mask.group_ends(groups)
    row.targets[start:end] = corrupted.targets
    row.weights[start:end] = corrupted.weights
    row.noise[start:end] = corrupted.noise
    row.normalizer[...] += 1 if objective.normalization == 'document' else corrupted.count
    start = end
  return row
