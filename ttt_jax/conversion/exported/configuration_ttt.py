"""Settings of a TtT model: those of its family, and `ttt`, what it hears and speaks by.

`config.ttt` holds three sections:

  vocabulary  which ids are text and which are audio, and the special ones
  mask        what an audio token sees: all of its span, or no further than its block
  sampling    the defaults of `generate`

Ids below `audio_start` are text class: pieces of text, marks of turns, and the tokens that
begin audio. Those from `audio_start` on are audio class: the codec's codes, the tokens that end
audio, and the mask. A span is a run of audio-class tokens, its end token included.
"""

from typing import Any

import transformers

VOCABULARY = (
  *('size', 'audio_start', 'codebook_start', 'codebook_size', 'turn_start', 'turn_end'),
  *('begin_audio', 'begin_last', 'end_prompt', 'end_inner', 'end_last', 'mask'),
)
SAMPLING = (
  *('block_size', 'steps_per_block', 'guidance', 'text_temperature', 'audio_temperature'),
  *('max_text', 'max_audio'),
)
FIELDS = {
  'vocabulary': (*VOCABULARY, 'tokenizer'),
  'mask': ('audio', 'block_size', 'causal_prompt'),
  'sampling': SAMPLING,
}


def check(ttt: Any, config: transformers.PretrainedConfig) -> dict[str, dict]:
  """`ttt` itself, if it is complete and fits the model.

  Raises:
    ValueError: says which key is missing, unknown, or has an impossible value.
  """
  _require_keys('ttt', ttt, tuple(FIELDS))
  for section, names in FIELDS.items():
    _require_keys(f'ttt.{section}', ttt[section], names)
  _check_vocabulary(ttt['vocabulary'], config.vocab_size)
  audio, size, causal = (ttt['mask'][name] for name in FIELDS['mask'])
  _require(audio in ('span', 'block'), 'ttt.mask.audio', audio, "'span' or 'block'")
  _require_count('ttt.mask.block_size', size)
  _require(isinstance(causal, bool), 'ttt.mask.causal_prompt', causal, 'true or false')
  check_sampling(ttt['sampling'])
  windowed = 'sliding_attention' in (getattr(config, 'layer_types', None) or ())
  if windowed or getattr(config, 'use_sliding_window', False):
    raise ValueError('use_sliding_window must be false: hybrid attention knows no window')
  return ttt


def check_sampling(sampling: dict[str, Any]) -> dict[str, Any]:
  """`sampling` itself, if `generate` can go by it.

  Raises:
    ValueError: says which setting is missing, unknown, or has an impossible value.
  """
  _require_keys('sampling', sampling, SAMPLING)
  for name in SAMPLING:
    value = sampling[name]
    if name in ('guidance', 'text_temperature', 'audio_temperature'):
      at_least_0 = isinstance(value, (int, float)) and value >= 0
      _require(at_least_0, f'sampling.{name}', value, 'at least 0')
    else:
      _require_count(f'sampling.{name}', value)
  size = sampling['block_size']
  _require(size <= sampling['max_audio'], 'sampling.block_size', size, 'at most max_audio')
  return sampling


def _check_vocabulary(v: dict[str, Any], rows: int) -> None:
  for name in VOCABULARY:
    _require(_is_count(v[name], least=0), f'ttt.vocabulary.{name}', v[name], 'an id or a size')
  text = max(v[name] for name in ('turn_start', 'turn_end', 'begin_audio', 'begin_last'))
  audio = min(v[name] for name in ('codebook_start', 'end_inner', 'end_last', 'mask'))
  if not text < v['audio_start'] <= audio:
    raise ValueError(
      'ttt.vocabulary: marks of turns and begins of audio must lie below audio_start; the '
      'codebook, the ends of the spans that the model speaks and the mask from it on'
    )
  ids = (v[name] for name in ('end_prompt', 'end_inner', 'end_last', 'mask'))
  last = max(*ids, v['codebook_start'] + v['codebook_size'] - 1)
  _require(last < v['size'] <= rows, 'ttt.vocabulary.size', v['size'], f'{last + 1} to {rows}')


def _require_keys(key: str, section: Any, names: tuple[str, ...]) -> None:
  if not isinstance(section, dict):
    raise ValueError(f'{key} is {section!r}, but must hold: {", ".join(names)}')
  for what, odd in (
    ('missing', set(names) - set(section)),
    ('unknown', set(section) - set(names)),
  ):
    if odd:
      raise ValueError(
        f'{what} in {key}: {", ".join(sorted(odd))} (it holds {", ".join(names)})'
      )


def _require(condition: bool, key: str, value: Any, what: str) -> None:
  if not condition:
    raise ValueError(f'{key} is {value!r}, but must be {what}')


def _require_count(key: str, value: Any) -> None:
  _require(_is_count(value, least=1), key, value, 'a whole number above 0')


def _is_count(value: Any, least: int) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value >= least


class TtTQwen2Config(transformers.Qwen2Config):
  """Settings of a Qwen2 that reads, hears and speaks."""

  def __init__(self, ttt: dict[str, dict] | None = None, **settings):
    """`ttt` as above, and the settings of Qwen2; ValueError where one does not fit."""
    super().__init__(**settings)
    self.ttt = None if ttt is None else check(ttt, self)


class TtTQwen3Config(transformers.Qwen3Config):
  """Settings of a Qwen3 that reads, hears and speaks."""

  def __init__(self, ttt: dict[str, dict] | None = None, **settings):
    """`ttt` as above, and the settings of Qwen3; ValueError where one does not fit."""
    super().__init__(**settings)
    self.ttt = None if ttt is None else check(ttt, self)


class TtTLlamaConfig(transformers.LlamaConfig):
  """Settings of a Llama that reads, hears and speaks."""

  def __init__(self, ttt: dict[str, dict] | None = None, **settings):
    """`ttt` as above, and the settings of Llama; ValueError where one does not fit."""
    super().__init__(**settings)
    self.ttt = None if ttt is None else check(ttt, self)
