"""Records to read and to listen to, turn by turn."""

import itertools
import json
from collections.abc import Iterator

import numpy as np

from data_pipelines import records
from ttt_jax import assets as assets_lib
from ttt_jax import errors
from ttt_jax.inspection import statistics, turns
from ttt_jax.pages import markup, sound
from ttt_jax.pages.markup import element

_LONGEST = 30.0  # seconds of a span that are kept
_BUDGET = 240.0  # seconds of sound in a page
_TEXT = 20_000  # characters of a text that are shown
_IDS = 4000  # of a record that are shown


class Cards:
  """Draws records; all of them share one budget of sound."""

  def __init__(self, assets: assets_lib.Assets):
    """Takes what the records' ids mean."""
    self._assets, self._left = assets, _BUDGET
    self._reader = turns.Reader(assets.template)

  def card(self, record: records.Record) -> markup.Html:
    """One record: what is known about it, its turns, and its ids on demand."""
    try:
      records.check_record(record, self._assets.vocabulary)
    except records.DataError as error:
      about = element('p', f'It cannot be taken apart: {error}', class_='quiet')
      return element('article', _head(record), about, class_='card')
    tokens, targets, _ = record.document
    about = {'Tokens': f'{len(tokens):,}', 'Targets': f'{targets.sum():,}'}
    given = record.about.items() if isinstance(record.about, dict) else ()
    about |= {name: _cut(_json(value)) for name, value in given if name != 'task'}
    return element(
      'article',
      _head(record),
      markup.definitions(about),
      *self._turns(record),
      self._ids(record),
      class_='card',
    )

  def _turns(self, record: records.Record) -> Iterator[markup.Html]:
    tokens, targets, spans = record.document
    pieces = self._reader.pieces(tokens, spans)
    for (role, _), group in itertools.groupby(pieces, lambda piece: (piece.role, piece.turn)):
      parts = []
      for piece in group:
        trained = bool(targets[piece.start : piece.end].any())
        if piece.audio:
          codes = self._assets.vocabulary.to_codes(tokens[piece.start : piece.end])
          parts.append(self._sound(codes, trained, record.key))
          continue
        text = self._assets.tokenizer.decode(tokens[piece.start : piece.end].tolist())
        if role or text.strip():  # what stands between turns is a line break
          shown = element('bdi', _cut(text), class_='target' if trained else None)
          parts.append(element('p', shown, class_='said'))
      if parts:
        yield element(
          'section', element('h4', role or 'outside of turns'), *parts, class_='turn'
        )

  def _sound(self, codes: np.ndarray, trained: bool, key: str) -> markup.Html:
    """A player, or the reason why there is none."""
    kind = 'response' if trained else 'prompt'
    title = element('span', f'audio of the {kind}, {len(codes):,} codes', class_='quiet')
    return element('div', title, self._player(codes, f'{kind} of {key}'), class_=f'span {kind}')

  def _player(self, codes: np.ndarray, label: str) -> markup.Html:
    if self._left <= 0:
      return _note(f'Not decoded: this page holds {_BUDGET:g} seconds of sound already.')
    codec = self._assets.codec
    try:
      most = int(min(_LONGEST, self._left) * codec.frame_rate)
      samples = codec.decode(codes[: max(1, most)])
    except errors.UserError as error:
      return _note(f'It cannot be played: {error}.')
    if not len(samples):
      return _note('No sound.')
    seconds = len(samples) / codec.sample_rate
    self._left -= seconds
    length = f'{seconds:.1f} s'
    if len(codes) > most:
      length = f'first {length} of {len(codes) / codec.frame_rate:.1f} s'
    player = sound.player(samples, codec.sample_rate, f'{label}, {length}')
    return markup.join(element('small', f' {length}'), player)

  def _ids(self, record: records.Record) -> markup.Html:
    """Runs of tokens that are of one kind, with their ids."""
    tokens = record.document.tokens
    shown, targets = tokens[:_IDS], record.document.targets[:_IDS]
    kinds = self._kinds(record)[:_IDS]
    changes = (kinds[1:] != kinds[:-1]) | (targets[1:] != targets[:-1])
    edges = [0, *(np.flatnonzero(changes) + 1).tolist(), len(shown)]
    names = {index: name for name, index in self._assets.vocabulary.names.items()}
    rows = []
    for start, end in zip(edges, edges[1:]):
      run = shown[start:end].tolist()
      kind = str(kinds[start])
      colour = element('i', class_=f'swatch {kind.split()[0]}')
      place = f'{start:,} to {end - 1:,}' if end - start > 1 else f'{start:,}'
      learnt = 'target' if targets[start] else None
      rows.append(
        (
          place,
          element('span', colour, kind, class_='kind'),
          learnt or '',
          self._assets.tokenizer.decode(run) or ' '.join(names[i] for i in run if i in names),
          element('code', ' '.join(map(str, run)), class_=learnt),
        )
      )
    more = len(tokens) - len(shown)
    return element(
      'details',
      element('summary', f'Token ids of {record.key}'),
      markup.table(
        ('Position', 'Kind', 'Learnt', 'Reads', 'Ids'), rows, f'Ids of {record.key}', 'ids'
      ),
      _note(f'{more:,} more are left out.') if more else '',
    )

  def _kinds(self, record: records.Record) -> np.ndarray:
    """What each token is: text, special, prompt audio or response audio."""
    tokens, _, spans = record.document
    kinds = np.full(len(tokens), 'text', 'U14')
    for (start, end), response in zip(spans.tolist(), record.document.responses.tolist()):
      kinds[start:end] = 'response audio' if response else 'prompt audio'
    marks = list(self._assets.vocabulary.names.values())
    kinds[np.isin(tokens, marks) & (kinds == 'text')] = 'special'
    return kinds


def _head(record: records.Record) -> markup.Html:
  task = element('span', statistics.task_of(record), class_='badge')
  return element('header', task, element('code', element('bdi', _cut(record.key))))


def _json(value) -> str:
  return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
  """The beginning of a text that is too long to be shown."""
  return text if len(text) <= _TEXT else f'{text[:_TEXT]} … ({len(text):,} characters)'


def _note(text: str) -> markup.Html:
  return element('p', text, class_='quiet')
