"""The report of an evaluation: one HTML file that needs nothing else."""

import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from data_pipelines import records
from data_pipelines.stream import rows as rows_lib
from ttt_jax import errors
from ttt_jax.evaluation import candidate as candidate_lib
from ttt_jax.evaluation import curves, evaluate, examples, summary
from ttt_jax.pages import markup, packed_row, page
from ttt_jax.pages.markup import element

_LEAD = (
  'One Transformer learned text from left to right, and audio by masked diffusion inside '
  'spans. This page shows what it makes of records that it was not trained on, judged by '
  'an independent listener.'
)


def versions() -> dict[str, str]:
  """What the results were made with: libraries, and the machine."""
  out = {'python': platform.python_version()}
  for name in ('jax', 'flax', 'numpy', 'ttt_jax'):
    try:
      out[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      out[name] = 'not installed'
  return out | {'platform': platform.platform(), 'cpus': str(os.cpu_count())}


def write(path: str | pathlib.Path, judged: evaluate.Judged) -> None:
  """Writes the report.

  Args:
    path: of the file, which is replaced.
    judged: what came of the evaluation.

  Raises:
    OSError: the file cannot be written.
  """
  page.write(
    path,
    name='Evaluation of a ttt_jax model',
    title='How well the model reads, listens and speaks',
    lead=_LEAD,
    facts=_facts(judged),
    sections=_sections(judged),
    note=judged.results.get('note'),
  )


def _facts(judged: evaluate.Judged) -> dict[str, str]:
  codec = judged.candidates[0].assets.codec
  facts = {}
  for one in judged.candidates:
    name = f'Checkpoint {one.name}' if len(judged.candidates) > 1 else 'Checkpoint'
    facts[name] = f'{one.folder}, step {one.step}, {one.count:,} parameters'
  folders = {folder: None for task in judged.tasks for folder in task.task.data}
  facts['Data'] = ', '.join(folders)
  facts['Items judged'] = str(sum(len(task.items.chosen) for task in judged.tasks))
  if 'decode' in codec.abilities:
    facts['Codec'] = f'{codec.frame_rate:g} tokens a second of {codec.codebook_size} codes'
  return facts


def _sections(judged: evaluate.Judged) -> dict[str, tuple[str, markup.Html]]:
  """Title and content by the name of the section."""
  sections = {
    'results': ('Results', summary.html(judged.results)),
    'speech': ('Speech to listen to', examples.speech(judged)),
    'texts': ('What was written', examples.texts(judged)),
    'failures': ('Items that failed', examples.failures(judged)),
    'training': ('Training', _of_each(judged, _training)),
    'noise': ('Against the level of noise', _of_each(judged, _noise)),
    'row': ('One row of training', _row(judged)),
    'config': ('Settings', _of_each(judged, _config)),
    'suite': ('Suite', _suite(judged)),
    'versions': ('How it was made', _made(judged.results)),
  }
  return {name: section for name, section in sections.items() if section[1]}


def _of_each(judged: evaluate.Judged, part) -> markup.Html:
  """A part of the page of each model, below its name where there are several."""
  if len(judged.candidates) == 1:
    return part(judged.candidates[0])
  parts = [
    element('div', element('h3', one.name), part(one), class_='row')
    for one in judged.candidates
  ]
  return markup.join(*parts)


def _training(one: candidate_lib.Candidate) -> markup.Html:
  return curves.against_step(curves.read(one.folder), _audio_ids(one))


def _noise(one: candidate_lib.Candidate) -> markup.Html:
  return curves.against_noise(curves.read(one.folder), _audio_ids(one))


def _audio_ids(one: candidate_lib.Candidate) -> int:
  return one.assets.vocabulary.size - one.assets.vocabulary.audio_start


def _row(judged: evaluate.Judged) -> markup.Html:
  one, data = judged.candidates[0], judged.tasks[0].task.data[0]
  config = one.config
  try:
    source = records.Source(data, config.data.split, config.data.cache)
    alone = config.data.alone(data)
    rows = rows_lib.Rows([source], alone, config.mask, config.objective, config.seed)
    return packed_row.picture(rows[0], one.assets.vocabulary)
  except errors.UserError as error:
    return element('p', f'It cannot be drawn: {error}', class_='quiet')


def _config(one: candidate_lib.Candidate) -> markup.Html:
  """Groups of settings side by side; what stands in no group comes first."""
  settings = one.config.to_dict()
  groups = {'general': {k: v for k, v in settings.items() if not isinstance(v, Mapping)}}
  groups |= {name: value for name, value in settings.items() if isinstance(value, Mapping)}
  return _tree(groups)


def _suite(judged: evaluate.Judged) -> markup.Html:
  """What each task asks, and by what it is judged."""
  groups = {}
  for task in judged.tasks:
    said = {key: value for key, value in vars(task.task).items() if value not in ((), {}, '')}
    said['metrics'] = ', '.join(metric.title for metric in task.task.metrics)
    groups[said.pop('name')] = said
  return _tree(groups)


def _tree(groups: Mapping[str, Mapping[str, Any]]) -> markup.Html:
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
