import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2

from ttt_jax import tokenizer
from ttt_jax.conversion import table, tokenizer_files

PIECES = [
  'zero',
  ' one',
  'two ',
  '\n',
  ' \n',
  '  ',
  '<|im_end|>',
  '\u00e9',
  '\u6f22',
  'thr',
  'ee',
  's',
]


@settings(max_examples=300)
@given(
  parts=st.lists(st.sampled_from(PIECES) | st.text('onetwo \n\u2581', max_size=6), max_size=8)
)
def test_a_sentencepiece_model_as_tokenizer_json_gives_the_same_ids(assets, parts):
  ours = assets.tokenizer
  theirs = tokenizer.HuggingFace(json.dumps(tokenizer_files.from_sentencepiece(ours.model)))
  text = ''.join(parts)
  ids = ours.encode(text)
  assert theirs.encode(text) == ids and theirs.decode(ids) == ours.decode(ids)
  assert theirs.size == ours.size


@pytest.mark.parametrize('change', ['unigram', 'normalized', 'symbol'])
def test_other_models_are_refused(assets, change):
  proto = sentencepiece_model_pb2.ModelProto.FromString(assets.tokenizer.model)
  if change == 'unigram':
    proto.trainer_spec.model_type = proto.trainer_spec.UNIGRAM
  elif change == 'normalized':
    proto.normalizer_spec.precompiled_charsmap = b'map'
  else:
    kind = proto.SentencePiece.USER_DEFINED
    proto.pieces.add(piece='\u6f22\u5b57', score=0, type=kind)
  with pytest.raises(table.ConversionError, match='only a sentencepiece BPE|cannot be put'):
    tokenizer_files.from_sentencepiece(proto.SerializeToString())
