r"""Records as the authors of the method write them: strings in which audio stands as tokens.

`<|begin_of_audio|><|audio_17|>...<|end_of_audio|>` inside the text of a turn; a conversation
is `{"messages": [{"role", "content"}, ...]}`, `{"conversations": [{"from", "value"}, ...]}`
or `{"prompt", "response"}`, and an interleaved text is `{"text"}`. Loss falls on what the
assistant says, and on everything of an interleaved text.
"""

import functools
import re
from typing import Any

import numpy as np

from ttt_jax import chat
from ttt_jax import vocabulary as vocabulary_lib

_MARK = re.compile(r'(<\|[a-z0-9_]+\|>)')
_BROKEN = re.compile(r'<\|(?:audio_|begin_of_|end_of_).{,40}', re.DOTALL)  # as if it were one
_ROLES = {'human': 'user', 'gpt': 'assistant'}


def compose(content: dict[str, Any], template: chat.Template) -> chat.Document:
  """A record as tokens.

  Raises:
    ValueError: the record has none of the known forms; its turns are empty or out of order;
      a token is unknown or stands where it may not; or audio has not the begin and end that
      it should have.
  """
  form = _form(content)
  if form == 'text':
    ids = _tokens(_not_empty(content['text'], 'text'), template, 'text')
    return _document(ids, [True] * len(ids), template)
  tokens, targets, turns = [], [], _turns(content, form)
  for role, said in turns:
    head, body = template.head(role), [*_tokens(said, template, role), *template.tail]
    tokens += head + body
    targets += [False] * len(head) + [role == 'assistant'] * len(body)
  chat.check_order([role for role, _ in turns])
  return _document(tokens, targets, template)


def texts(content: dict[str, Any]) -> list[tuple[str, str]]:
  """Role ('' of a text without turns) and words of each turn, of what `compose` took."""
  form = _form(content)
  turns = [('', content['text'])] if form == 'text' else _turns(content, form)
  return [(role, _MARK.sub('', said)) for role, said in turns]


def _document(tokens: list[int], targets: list[bool], template: chat.Template):
  ids = np.array(tokens, np.int32)
  return chat.Document(ids, np.array(targets, bool), template.vocabulary.spans(ids))


def _form(content: dict[str, Any]) -> str:
  """The key that says which of the known forms a record has."""
  forms = [
    form for form in ('messages', 'conversations', 'response', 'text') if form in content
  ]
  if len(forms) != 1 or ('response' in forms) != ('prompt' in content):
    raise ValueError(
      'must have one of "messages", "conversations", "prompt" with "response", and "text", '
      f'but has {sorted(content)}'
    )
  return forms[0]


def _turns(content: dict[str, Any], form: str) -> list[tuple[str, str]]:
  """Role and text of each turn."""
  keys, turns = ('role', 'content'), content[form]
  if form == 'conversations':
    keys = ('from', 'value')
  elif form == 'response':
    said = (('user', content['prompt']), ('assistant', content['response']))
    turns = [{'role': role, 'content': text} for role, text in said]
  if not isinstance(turns, list) or not turns:
    raise ValueError('has no turns')
  out = []
  for turn in turns:
    role, said = (turn.get(key) if isinstance(turn, dict) else None for key in keys)
    if not isinstance(role, str) or not isinstance(said, str):
      raise ValueError(f'a turn needs the texts {keys[0]!r} and {keys[1]!r}: {turn!r:.80}')
    role = _ROLES.get(role, role)
    out.append((role, _not_empty(said, f'turn of the {role}')))
  return out


def _not_empty(said: Any, name: str) -> str:
  if not isinstance(said, str):
    raise ValueError(f'a text is needed, not {said!r:.40}')
  if not said.strip():
    raise ValueError(f'the {name:.40} is empty')
  return said


def _tokens(said: str, template: chat.Template, role: str) -> list[int]:
  """Ids of what `role` says, audio in it, or of a 'text'; marks of turns are refused."""
  vocabulary, tokens = template.vocabulary, []
  known = vocabulary.audio_names
  for part in filter(None, _MARK.split(said)):
    if part in known:
      tokens.append(known[part])
    elif vocabulary_lib.is_mark(part) or template.tokenizer.has(part):
      raise ValueError(f'{part} is not a token that may stand in a text here')
    elif broken := _BROKEN.search(part):
      raise ValueError(f'{broken[0]} is no whole or no known token of audio')
    else:
      tokens += template.tokenizer.encode(part)
  ids = np.array(tokens, np.int32)
  _check_spans(ids, vocabulary)
  given = vocabulary.is_prompt(ids, vocabulary.spans(ids)) if tokens else np.zeros(0, bool)
  if given.any() if role in ('assistant', 'text') else not given.all():
    raise ValueError(
      f'audio of the {role} ends by another token than such audio does: '
      f'{vocabulary_lib.END_PROMPT} ends what a user gave, and nothing else'
    )
  return tokens


def _check_spans(tokens: np.ndarray, vocabulary: vocabulary_lib.Vocabulary) -> None:
  """Audio must stand between a begin token and the end token that goes with it."""
  opened, closed = _any(tokens, vocabulary.begins), _any(tokens, vocabulary.ends)
  spans = vocabulary.spans(tokens)
  for start, end in spans:
    ends = np.flatnonzero(closed[start:end])
    behind = end < len(tokens) and tokens[end] == vocabulary.end_prompt
    if start == 0 or not opened[start - 1]:
      raise ValueError('audio begins without a begin token')
    if not behind and (len(ends) != 1 or ends[0] != end - start - 1):
      raise ValueError('audio must end by one end token')
    if end - start == len(ends):
      raise ValueError('a span of audio has no codes')
    last = not behind and tokens[end - 1] == vocabulary.end_last
    if (tokens[start - 1] == vocabulary.begin_last) != last:
      raise ValueError(
        f'{vocabulary_lib.BEGIN_LAST} and {vocabulary_lib.END_LAST} go with each other alone'
      )
  if opened.sum() != len(spans):
    raise ValueError('a begin token is followed by no audio')
  # Where a vocabulary has the end of a prompt span in text class, it may stand alone.
  if closed.sum() != len(spans):
    raise ValueError('an end token is preceded by no audio')


def _any(tokens: np.ndarray, ids: tuple[int, ...]) -> np.ndarray:
  """Where one of a few ids stands; for them, faster than np.isin."""
  return functools.reduce(np.logical_or, (tokens == one for one in ids))
