import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax import chat
from ttt_jax.inspection import turns

_PART = st.one_of(
  st.text('one two', min_size=1, max_size=8),
  st.lists(st.integers(0, 31), max_size=5).map(lambda codes: np.array(codes, np.int32)),
)
_TURN = st.builds(
  chat.Turn, st.sampled_from(chat.ROLES), st.lists(_PART, min_size=1, max_size=4)
)


@settings(max_examples=60)
@given(st.lists(_TURN, min_size=1, max_size=4))
def test_pieces_are_what_the_template_was_given(assets, conversation):
  document = assets.template.document(conversation)
  tokens, _, spans = document
  begins = assets.vocabulary.begin_audio, assets.vocabulary.begin_last  # of spans, before them
  pieces = list(turns.Reader(assets.template).pieces(tokens, spans))
  for number, turn in enumerate(conversation, 1):
    found = [piece for piece in pieces if piece.turn == number and piece.role == turn.role]
    said, codes = [], []
    for piece in found:
      run = tokens[piece.start : piece.end]
      if piece.audio:
        codes.append(assets.vocabulary.to_codes(run).tolist())
      else:
        said += [token for token in run.tolist() if token not in begins]
    assert codes == [part.tolist() for part in turn.parts if not isinstance(part, str)]
    texts = [part for part in turn.parts if isinstance(part, str)]
    assert said == [token for text in texts for token in assets.tokenizer.encode(text)]
  rest = [piece for piece in pieces if not piece.role]
  assert {assets.tokenizer.decode(tokens[p.start : p.end].tolist()) for p in rest} <= {'\n'}


@settings(max_examples=100)
@given(st.lists(st.integers(0, 8), max_size=30))
def test_pieces_of_anything_lie_in_order_and_hold_every_span(assets, places):
  v = assets.vocabulary
  few = (v.turn_start, v.turn_end, v.begin_audio, v.codebook_start, v.end_prompt, 50, 51)
  few += tuple(assets.template.head('user')[1:3])
  tokens = np.array([few[place] for place in places], np.int32)
  spans = v.spans(tokens)
  pieces = list(turns.Reader(assets.template).pieces(tokens, spans))
  ends = [0, *(piece.end for piece in pieces)]
  assert all(end <= piece.start < piece.end for end, piece in zip(ends, pieces))
  assert [[p.start, p.end] for p in pieces if p.audio] == spans.tolist()
  held = {i for piece in pieces for i in range(piece.start, piece.end)}
  left = [tokens[i] for i in range(len(tokens)) if i not in held]
  allowed = {v.turn_start, v.turn_end}
  for role in chat.ROLES:
    allowed |= set(assets.template.head(role))
  assert set(left) <= allowed
