"""The reference by hand: what is alternated, revealed, cut and limited."""

import numpy as np
import pytest
import reference
from conftest import make_config

from ttt_jax import chat, mask
from ttt_jax.diffusion import corruption


class Script:
  """Drives a dialogue by hand: what the network would say."""

  def __init__(self, assets, **changes):
    config = make_config(**{f'sampling__{k}': v for k, v in changes.items()})
    self.v = assets.vocabulary
    prompt = assets.template.prompt([chat.Turn('user', ['one'])])
    self.dialogue = reference.Dialogue(prompt, self.v, config.sampling, config.mask)

  def text(self, token):
    assert not self.dialogue.in_audio
    self.dialogue.advance(np.full(4, token), np.ones(4))

  def block(self, ids, confidence):
    for _ in range(2):
      assert self.dialogue.in_audio
      self.dialogue.advance(np.array(ids), np.array(confidence))


def test_audio_is_revealed_block_by_block_and_cut_at_its_end(assets):
  script = Script(assets)
  v, d = script.v, script.dialogue
  a, b, c = v.from_codes(np.array([0, 1, 2])).tolist()
  script.text(v.begin_last)
  assert d.answer.tolist() == [v.begin_last] + [v.mask] * 4
  d.advance(np.array([a, b, c, a]), np.array([0.1, 0.9, 0.2, 0.8]))
  assert d.answer.tolist() == [v.begin_last, v.mask, b, v.mask, a]
  # What was revealed stays, whatever is predicted there later.
  d.advance(np.array([c, c, c, c]), np.ones(4))
  assert d.answer.tolist() == [v.begin_last, c, b, c, a] + [v.mask] * 4
  script.block([b, v.end_last, a, v.end_inner], [1, 1, 1, 1])
  assert d.answer.tolist() == [v.begin_last, c, b, c, a, b, v.end_last]
  assert not d.in_audio
  script.text(v.turn_end)
  assert d.done and d.complete


def test_limits_end_spans_and_answers(assets):
  script = Script(assets, max_audio=8, max_text=3)
  v, d = script.v, script.dialogue
  code = int(v.from_codes(np.array([3]))[0])
  script.text(v.begin_audio)
  script.block([code] * 4, np.ones(4))
  script.block([code] * 4, np.ones(4))
  assert not d.in_audio and d.tokens[-1] == v.end_inner and not d.complete
  script.text(0)
  script.text(v.begin_last)  # a begin at the very end of the budget ends the answer
  assert d.done and not d.complete


@pytest.mark.parametrize('audio,causal', [('span', False), ('block', False), ('span', True)])
def test_the_view_is_the_mask_of_training(assets, documents, audio, causal):
  config = make_config(mask__audio=audio, mask__block_size=3, mask__causal_prompt=causal)
  for document in documents[:20]:
    grown = reference.Dialogue(
      document.tokens[:5], assets.vocabulary, config.sampling, config.mask
    )
    grown.tokens = document.tokens.tolist()
    prompts = ~document.responses if causal else None
    block = 3 if audio == 'block' else None
    order = mask.order_groups(len(document.tokens), document.spans, block, prompts)
    np.testing.assert_array_equal(grown.view()[1], mask.group_ends(order))


def test_what_is_read_without_condition_is_what_training_reads(assets, documents):
  config = make_config()
  for document in documents[:20]:
    nothing = np.ones(len(document.tokens))
    draws = corruption.Draws(0.5, nothing, False, 0, True)
    out = corruption.corrupt(document, draws, config.objective, assets.vocabulary)
    grown = reference.Dialogue([0], assets.vocabulary, config.sampling, config.mask)
    grown.tokens = document.tokens.tolist()
    assert grown.bare().tolist() == out.inputs.tolist()
