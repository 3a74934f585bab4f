"""The report of an evaluation: one HTML file that needs nothing else, and a table of text."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from data_pipelines import records
from data_pipelines.stream import rows as rows_lib
from ttt_jax import assets as assets_lib
from ttt_jax import errors
from ttt_jax.evaluation import curves, judge, sounds, summary, transcripts
from ttt_jax.pages import markup, packed_row, page
from ttt_jax.pages.markup import element
from ttt_jax.sampling import session as session_lib

_SPOKEN, _ANSWERED, _WRITTEN = 6, 4, 12  # examples of each task

_LEAD = (
  'One Transformer learned text from left to right, and audio by masked diffusion inside '
  'spans. This page shows what it makes of records that it was not trained on, judged by '
  'an independent listener.'
)

table = summary.table


def versions() -> dict[str, str]:
  """What the results were made with: libraries, and the machine."""
  out = {'python': platform.python_version()}
  for name in ('jax', 'flax', 'numpy', 'ttt_jax'):
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      out[name] = 'not installed'
  return out | {'platform': platform.platform(), 'cpus': str(os.cpu_count())}


def write(
  path: str | pathlib.Path,
  results: Mapping[str, Any],
  heard: Sequence[judge.Heard],
  session: session_lib.Session,
  checkpoint: str | pathlib.Path,
  data: str | pathlib.Path,
  split: str = 'test',
) -> None:
  """Writes the report.

  Args:
    path: of the file, which is replaced.
    results: figures by name; those that are missing are left out.
    heard: the answers that were judged.
    session: the model that gave them.
    checkpoint: folder of its run, for the curves of training.
    data: folder of the data set, for questions and a row of training.
    split: of the data set that was answered.

  Raises:
    OSError: the file cannot be written.
  """
  page.write(
    path,
    name='Evaluation of a ttt_jax model',
    title='How well the model reads, listens and speaks',
    lead=_LEAD,
    facts=_facts(heard, session, checkpoint, data),
    sections=_sections(results, heard, session, checkpoint, data, split),
    note=results.get('note'),
  )


def _facts(heard, session, checkpoint, data) -> dict[str, str]:
  codec = session.assets.codec
  parameters = sum(leaf.size for leaf in jax.tree.leaves(session.params))
  facts = {
    'Run': str(checkpoint),
    'Data set': str(data),
    'Records judged': str(len(heard)),
    'Parameters': f'{parameters:,}',
    'Codec': f'{codec.frame_rate:g} tokens a second of {codec.codebook_size} codes',
  }
  reports = curves.read(checkpoint)
  return facts | ({'Steps of training': str(reports[-1]['step'])} if reports else {})


def _sections(results, heard, session, checkpoint, data, split) -> dict[str, tuple]:
  """Title and content by the name of the section."""
  vocabulary = session.assets.vocabulary
  reports = curves.read(checkpoint)
  audio_ids = vocabulary.size - vocabulary.audio_start
  sections = {
    'results': ('Results', summary.html(results)),
    'speech': ('Speech to listen to', _speech(heard, session, data, split)),
    'transcriptions': ('Transcriptions', _transcriptions(heard)),
    'training': ('Training', curves.against_step(reports, audio_ids)),
    'noise': ('Against the level of noise', curves.against_noise(reports, audio_ids)),
    'row': ('One row of training', _row(session, data)),
    'config': ('Settings', _config(session.config.to_dict())),
    'versions': ('How it was made', _made(results)),
  }
  return {name: section for name, section in sections.items() if section[1]}


def _speech(heard, session, data, split) -> markup.Html:
  speak = [item for item in heard if item.task == assets_lib.SPEAK]
  answer = [item for item in heard if item.task == assets_lib.ANSWER]
  chosen = sounds.spread(speak, _SPOKEN) + sounds.spread(answer, _ANSWERED)
  if not chosen:
    return markup.Html('')
  about = element(
    'p',
    'Evenly spaced among the records: nobody picked them. In what was heard, ',
    element('del', 'struck-out'),
    ' words are missing and ',
    element('ins', 'underlined'),
    ' words should not be there. Original, codec and model share one scale of time.',
    class_='quiet',
  )
  questions = _questions(chosen, data, split)
  made = sounds.cards(chosen, session.assets.codec.sample_rate, questions)
  return markup.join(about, *made)


def _questions(chosen: Sequence[judge.Heard], data, split: str) -> dict[str, str]:
  """The questions behind answers, by key; none if the records are gone."""
  wanted = {item.key: item.reference for item in chosen if item.task == assets_lib.ANSWER}
  if not wanted:
    return {}
  try:
    source = records.Source(data, split)
  except errors.UserError:
    return {}
  found = {}
  for index in range(len(source)):
    key, _, about = source[index]
    if 'question' in about and wanted.get(key) == about.get('text'):
      found[key] = about['question']
  return found


def _transcriptions(heard: Sequence[judge.Heard]) -> markup.Html:
  items = [item for item in heard if item.task == assets_lib.TRANSCRIBE]
  if not items:
    return markup.Html('')
  headings = ('Should write', 'Wrote', 'Mistakes')
  head = element('tr', *(element('th', text, scope='col') for text in headings))
  body = [
    element(
      'tr',
      element('td', item.reference),
      element('td', transcripts.marked(item.reference, item.text)),
      element('td', transcripts.score(item.reference, item.text)),
    )
    for item in sounds.spread(items, _WRITTEN)
  ]
  grid = element('table', element('thead', head), element('tbody', *body), class_='words')
  return markup.scrolling('Table of transcriptions', grid)


def _row(session: session_lib.Session, data) -> markup.Html:
  config = session.config
  try:
    source = records.Source(data, config.data.split)
    alone = config.data.alone(data)
    rows = rows_lib.Rows([source], alone, config.mask, config.objective, config.seed)
    return packed_row.picture(rows[0], session.assets.vocabulary)
  except errors.UserError as error:
    return element('p', f'It cannot be drawn: {error}', class_='quiet')


def _config(settings: Mapping[str, Any]) -> markup.Html:
  """Groups of settings side by side; what stands in no group comes first."""
  groups = {'general': {k: v for k, v in settings.items() if not isinstance(v, Mapping)}}
  groups |= {name: value for name, value in settings.items() if isinstance(value, Mapping)}
  cards = [
    element(
      'section',
      element('h3', name),
      markup.definitions({key: str(value) for key, value in group.items()}),
    )
    for name, group in groups.items()
    if group
  ]
  return element('div', *cards, class_='tree')


def _made(results: Mapping[str, Any]) -> markup.Html:
  command = results.get('command')
  parts = [markup.definitions({k: str(v) for k, v in results.get('versions', {}).items()})]
  if command:
    text = command if isinstance(command, str) else ' '.join(map(str, command))
    parts.insert(0, markup.scrolling('Command', element('pre', element('code', text))))
  return markup.join(*parts)
