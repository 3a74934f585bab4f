"""Looks at a split of a data set: its figures, a batch as training sees it, some records."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import records
from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import errors
from ttt_jax.inspection import cards, quarantine, scan, tables, training
from ttt_jax.inspection import figures as figures_lib
from ttt_jax.pages import markup, packed_row, page
from ttt_jax.pages.markup import element

_LEAD = (
  'What the records of this data set hold, how training packs and masks them, and what some '
  'of them say.'
)


class Choice(NamedTuple):
  """What to look at.

  Attributes:
    sample: records that figures are taken of, at random; None takes all.
    shown: records that are shown in full, at random.
    keys: of records that are shown instead.
    step: of training, whose batch is drawn.
    rows: of the batch that are drawn.
  """

  sample: int | None
  shown: int
  keys: Sequence[str]
  step: int
  rows: int


class Survey(NamedTuple):
  """What was found.

  Attributes:
    source: the split.
    figures: plain JSON values.
    rows: of the batch that was looked at.
    first_row: the number of the first of them.
    trouble: why there are no rows; '' if there are, or none were asked for.
    shown: the records to show, in order.
  """

  source: records.Source
  figures: dict[str, Any]
  rows: list[batch_lib.Batch]
  first_row: int
  trouble: str
  shown: list[records.Record]


def survey(
  data: str | pathlib.Path, split: str, config: config_lib.Config, choice: Choice
) -> Survey:
  """Goes through a split of a data set.

  Args:
    data: folder of the data set; that of `config.data` is not asked for.
    split: of the data set.
    config: settings of training.
    choice: what to look at.

  Raises:
    UserError: the data set, the split or a key does not exist, or something is damaged.
  """
  source = records.Source(data, split, config.data.cache)
  rng = np.random.default_rng(config.seed)
  sampled = choice.sample is not None and choice.sample < len(source)
  count = choice.sample if sampled else len(source)
  numbers = np.sort(rng.choice(len(source), count, replace=False)) if sampled else range(count)
  shown = 0 if choice.keys else min(choice.shown, count)
  chosen = [int(numbers[i]) for i in rng.choice(count, shown, replace=False)]
  found = scan.scan(source, numbers, chosen, choice.keys)
  figures = {
    'data': str(data),
    'split': split,
    'records_of_split': len(source),
    'sampled': count if sampled else None,
    'made_with': source.fingerprints,
  }
  figures |= figures_lib.figures(
    found.statistics,
    figures_lib.frame_rate(source.assets.codec),
    config.data.row_length,
    lambda number: source[number].key,
  )
  figures['quarantine'] = quarantine.read(data)
  first, rows, trouble = 0, [], ''
  try:
    if choice.rows:
      first, rows = training.batch(source, config, choice.step)
  except errors.UserError as error:
    trouble = str(error)
  vocabulary = source.assets.vocabulary
  figures['rows'] = training.figures(rows, vocabulary) if rows else None
  kept = [found.chosen[number] for number in sorted(found.chosen)]
  if choice.keys:
    kept.sort(key=lambda record: list(choice.keys).index(record.key))
  return Survey(source, figures, rows[: choice.rows], first, trouble, kept)


def write_json(path: str | pathlib.Path, figures: dict[str, Any]) -> None:
  """Writes the figures for programs.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    pathlib.Path(path).write_text(json.dumps(figures, indent=1) + '\n', encoding='utf-8')
  except OSError as error:
    raise errors.UserError(f'{path}: cannot be written ({error})') from error


def write_page(path: str | pathlib.Path, found: Survey) -> None:
  """Writes the page for people.

  Raises:
    UserError: the file cannot be written.
  """
  figures = found.figures
  read, whole = figures['sampled'], figures['records_of_split']
  note = f'Figures are of {read:,} records at random, of {whole:,}.' if read else None
  facts = {
    'Data set': figures['data'],
    'Split': figures['split'],
    'Records': f'{whole:,}',
  }
  if rate := figures['frame_rate']:
    facts['Audio'] = f'{rate:g} tokens a second of {figures["codes"]["size"]:,} codes'
  facts |= {name.capitalize(): value for name, value in figures['made_with'].items()}
  try:
    page.write(
      path,
      name=f'{figures["data"]}: {figures["split"]}',
      title='What is in the data set',
      lead=_LEAD,
      facts=facts,
      sections=_sections(found),
      note=note,
    )
  except OSError as error:
    raise errors.UserError(f'{path}: cannot be written ({error})') from error


def _sections(found: Survey) -> dict[str, tuple[str, markup.Html]]:
  figures = found.figures
  sections = {
    'counts': ('Counts', _counts(figures)),
    'lengths': ('Lengths', tables.lengths(figures)),
    'codes': ('Codes', tables.codes(figures)),
    'copies': ('Copies', tables.copies(figures)),
  }
  if figures['unsound']['records']:
    sections['unsound'] = ('Unsound records', tables.unsound(figures))
  if figures['quarantine'] is not None:
    sections['quarantine'] = ('Quarantine', tables.quarantine(figures))
  if found.rows or found.trouble:
    sections['rows'] = ('Rows of training', _rows(found))
  if found.shown:
    sections['records'] = ('Records', _records(found))
  return sections


def _counts(figures: dict[str, Any]) -> markup.Html:
  return markup.join(tables.counts(figures), markup.definitions(tables.summary(figures)))


def _rows(found: Survey) -> markup.Html:
  if found.trouble:
    return tables.note(f'They cannot be drawn: {found.trouble}.')
  looked = found.figures['rows']
  facts = {
    'Rows looked at': f'{looked["rows"]:,} of {looked["row_length"]:,} positions',
    'Fill': f'{100 * looked["fill"]:.1f} %, at least {100 * looked["least_fill"]:.1f} %',
    'Documents a row': f'{looked["documents"] / looked["rows"]:.1f}',
    'Text targets': f'{100 * looked["text_targets"]:.1f} % of tokens',
    'Audio targets': f'{100 * looked["audio_targets"]:.1f} % of tokens',
    'Masked': f'{100 * looked["masked"]:.1f} % of tokens',
    'Train audio': f'{100 * looked["trains_audio"]:.1f} % of documents',
  }
  vocabulary = found.source.assets.vocabulary
  parts = [markup.definitions(facts)]
  for number, row in enumerate(found.rows, found.first_row):
    rows = [
      (
        f'{document.start:,} to {document.end - 1:,}',
        *(f'{n:,}' for n in (document.text_targets, document.audio_targets, document.masked)),
        f'{document.noise:.2f}' if document.noise else '–',
      )
      for document in training.documents(row, vocabulary)
    ]
    headings = ('Positions', 'Text targets', 'Audio targets', 'Masked', 'Noise')
    table = markup.table(headings, rows, f'Documents of row {number}')
    picture = packed_row.picture(row, vocabulary)
    documents = element('details', element('summary', f'Documents of row {number}'), table)
    heading = element('h3', f'Row {number:,}')
    parts.append(element('section', heading, picture, documents, class_='row'))
  return markup.join(*parts)


def _records(found: Survey) -> markup.Html:
  drawn = cards.Cards(found.source.assets)
  about = tables.note('Underlined text is a target: what the model learns to say.')
  return markup.join(about, *(drawn.card(record) for record in found.shown))
