"""A text tokenizer and a vocabulary as the files that transformers reads."""

import json
import pathlib
import re
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from ttt_jax import tokenizer as tokenizer_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.conversion import table

# Qwen's template, in the language of transformers: see chat.py.
_CHAT = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + JOINT"
  "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Where a text is written with a space before it, so is what follows the line of the role.
_SPACE_JOINT = "('' if message['content'].startswith('<|') else ' ') + "
_PADDING = '<|endoftext|>'  # of Qwen's tokenizers; where it is missing, the end of a turn pads
_SPACE = '\u2581'  # what sentencepiece writes for a space


def write(
  directory: pathlib.Path,
  tokenizer: tokenizer_lib.Tokenizer,
  vocabulary: vocabulary_lib.Vocabulary,
) -> int:
  """Writes tokenizer.json, with the audio tokens, and tokenizer_config.json.

  Returns:
    The id of the padding token.

  Raises:
    ConversionError: the tokenizer cannot be written so.
  """
  base, spaced = tokenizer, False
  if isinstance(tokenizer, tokenizer_lib.SentencePiece):
    content = from_sentencepiece(tokenizer.model)
    spaced = any(step['type'] == 'Prepend' for step in content['normalizer']['normalizers'])
    base = tokenizer_lib.HuggingFace(json.dumps(content))
    tokenizer.save(directory)
  ids = dict(vocabulary.names)
  for code in range(vocabulary.codebook_size):
    ids[vocabulary_lib.code_name(code)] = vocabulary.codebook_start + code
  whole = base.added(sorted(ids, key=ids.get))
  wrong = [name for name, index in ids.items() if whole.special(name) != index]
  if wrong:
    raise table.ConversionError(
      f'{wrong[0]} has id {ids[wrong[0]]} in the vocabulary, but would get '
      f'{whole.special(wrong[0])} in tokenizer.json'
    )
  whole.save(directory)
  padding = _PADDING if whole.has(_PADDING) else vocabulary_lib.TURN_END
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    'auto_map': {'AutoTokenizer': [None, 'tokenization_ttt.TtTTokenizer']},
    'eos_token': vocabulary_lib.TURN_END,
    'pad_token': padding,
    'chat_template': _CHAT.replace('JOINT', _SPACE_JOINT if spaced else ''),
    'clean_up_tokenization_spaces': False,
  }
  text = json.dumps(settings, indent=1) + '\n'
  (directory / 'tokenizer_config.json').write_text(text, encoding='utf-8')
  return whole.special(padding)


def from_sentencepiece(model: bytes) -> dict[str, Any]:
  """A tokenizer.json that gives the ids of a sentencepiece BPE model."""
  proto = sentencepiece_model_pb2.ModelProto.FromString(model)
  trainer, normalizer, kind = proto.trainer_spec, proto.normalizer_spec, proto.SentencePiece
  if (
    trainer.model_type != trainer.BPE
    or normalizer.precompiled_charsmap
    or normalizer.remove_extra_whitespaces
    or not normalizer.escape_whitespaces
    or trainer.treat_whitespace_as_suffix
  ):
    raise table.ConversionError(
      'only a sentencepiece BPE model without normalization becomes a tokenizer.json'
    )
  if strange := [piece.piece for piece in proto.pieces if not isinstance(piece.piece, str)]:
    raise table.ConversionError(f'a piece of the tokenizer is no text: {strange[0]!r:.80}')
  vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
  own = [piece.piece for piece in proto.pieces if piece.type == kind.USER_DEFINED]
  first = [{'type': 'Prepend', 'prepend': _SPACE}] if normalizer.add_dummy_prefix else []
  strip = {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}
  longest_first = sorted(own, key=len, reverse=True)
  return {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': [
      {
        'id': index,
        'content': piece.piece,
        'single_word': False,
        'lstrip': False,
        'rstrip': False,
        'normalized': False,
        'special': True,
      }
      for index, piece in enumerate(proto.pieces)
      if piece.type in (kind.CONTROL, kind.UNKNOWN)
    ],
    'normalizer': {
      'type': 'Sequence',
      'normalizers': [
        *first,
        {'type': 'Replace', 'pattern': {'String': ' '}, 'content': _SPACE},
      ],
    },
    # What the user defined is cut out before anything is merged.
    'pre_tokenizer': {
      'type': 'Split',
      'pattern': {'Regex': '|'.join(map(re.escape, longest_first))},
      'behavior': 'Isolated',
      'invert': False,
    }
    if own
    else None,
    'post_processor': None,
    'decoder': {
      'type': 'Sequence',
      'decoders': [
        {'type': 'Replace', 'pattern': {'String': _SPACE}, 'content': ' '},
        {'type': 'ByteFallback'},
        {'type': 'Fuse'},
        *([strip] if first else []),
      ],
    },
    'model': {
      'type': 'BPE',
      'dropout': None,
      'unk_token': proto.pieces[trainer.unk_id].piece,
      'continuing_subword_prefix': None,
      'end_of_word_suffix': None,
      'fuse_unk': True,
      'byte_fallback': trainer.byte_fallback,
      'ignore_merges': False,
      'vocab': vocabulary,
      'merges': _merges(proto, vocabulary, own),
    },
  }


def _merges(proto, vocabulary: dict[str, int], own: list[str]) -> list[list[str]]:
  """Pairs of pieces that become one, the most urgent first.

  A sentencepiece model has scores of the pieces that come out, and no list of pairs: every
  pair of pieces that makes a piece is as urgent as that piece.
  """
  normal = [piece for piece in proto.pieces if piece.type == proto.SentencePiece.NORMAL]
  ranked = []
  for name in own:
    for end in range(2, len(name) + 1):
      if name[:end] not in vocabulary or name[end - 1] not in vocabulary:
        raise table.ConversionError(
          f"the tokenizer's own symbol {name!r} cannot be put together from its pieces"
        )
      ranked.append((-float('inf'), 0, 0, name[: end - 1], name[end - 1]))
  for piece in normal:
    for cut in range(1, len(piece.piece)):
      left, right = piece.piece[:cut], piece.piece[cut:]
      if left in vocabulary and right in vocabulary:
        order = (-piece.score, vocabulary[left], vocabulary[right])
        ranked.append((*order, left, right))
  return [[left, right] for *_, left, right in sorted(ranked)]
