import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_jax import chat, mask
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder, dialogue, draw, reveal


def random_decoder(assets, seed=0, **changes):
  config = make_config(**{f'sampling__{k}': v for k, v in changes.items()})
  model = transformer.Transformer(config.model, assets.vocabulary.size)
  ids = jnp.zeros((1, 2), jnp.int32)
  params = nn.unbox(model.init(jax.random.key(seed), ids, ids, ids, ids + 1)['params'])
  return decoder.Decoder(model, params, assets.vocabulary, config.sampling, config.mask), params


def prompts(assets, count=4):
  """Every other one ends by beginning audio: random networks seldom begin it themselves."""
  rng = np.random.default_rng(0)
  words = ['one', 'two', 'three', 'four', 'five', 'six']
  made = [
    assets.template.prompt([chat.Turn('user', [' '.join(rng.choice(words, 1 + i))])])
    for i in range(count)
  ]
  begin = assets.vocabulary.begin_last
  return [np.append(p, begin) if i % 2 else p for i, p in enumerate(made)]


def check_grammar(answer, vocabulary, sampling):
  """Text and audio alternate as they must, whatever the weights."""
  tokens, audio = answer.tokens, vocabulary.is_audio(answer.tokens)
  assert not (tokens == vocabulary.mask).any() and (tokens < vocabulary.size).all()
  for start, end in vocabulary.spans(tokens):
    assert start == 0 or tokens[start - 1] in (vocabulary.begin_audio, vocabulary.begin_last)
    assert (
      vocabulary.is_end(tokens[end - 1])
      and not vocabulary.is_end(tokens[start : end - 1]).any()
    )
    assert end - start <= sampling.max_audio + 1
  begins = np.isin(tokens, (vocabulary.begin_audio, vocabulary.begin_last))
  followed = np.append(audio[1:], True)
  assert followed[begins].all()
  assert (~audio).sum() <= sampling.max_text
  if answer.complete:
    assert tokens[-1] == vocabulary.turn_end


@pytest.mark.parametrize('temperature', [0.0, 2.0])
@pytest.mark.parametrize('seed', range(3))
def test_constraints_hold_for_random_weights(assets, seed, temperature):
  speak, _ = random_decoder(assets, seed, temperature=temperature)
  sampling = make_config().sampling
  answers = speak(prompts(assets))
  for answer in answers:
    check_grammar(answer, assets.vocabulary, sampling)
  assert any(assets.vocabulary.is_audio(answer.tokens).any() for answer in answers)


def test_answers_do_not_depend_on_their_neighbours(assets):
  speak, _ = random_decoder(assets, temperature=1.0)
  together = speak(prompts(assets), seeds=[7, 8, 9, 10])
  for i in (1, 3):
    (alone,) = speak(prompts(assets)[i : i + 1], seeds=[7 + i])
    assert alone.tokens.tolist() == together[i].tokens.tolist()


def test_greedy_text_is_what_the_network_says(assets):
  # The oracle: one token at a time, the whole sequence through the network each time.
  speak, params = random_decoder(assets, max_text=6)
  model = transformer.Transformer(make_config().model, assets.vocabulary.size)
  (prompt,) = prompts(assets, 1)
  (answer,) = speak([prompt])
  tokens = prompt.tolist()
  for wanted in answer.tokens:
    if assets.vocabulary.is_audio(wanted):
      break
    ids = np.array(tokens)[None]
    end = mask.group_ends(mask.order_groups(len(tokens), assets.vocabulary.spans(ids[0])))
    where = np.arange(len(tokens))[None]
    logits = model.apply({'params': params}, ids, where, where * 0, end[None])
    assert int(logits[0, -1, : assets.vocabulary.audio_start].argmax()) == wanted
    tokens.append(int(wanted))


class Script:
  """Drives a dialogue by hand: what the network would say."""

  def __init__(self, assets, **changes):
    config = make_config(**{f'sampling__{k}': v for k, v in changes.items()})
    self.v = assets.vocabulary
    prompt = assets.template.prompt([chat.Turn('user', ['one'])])
    self.dialogue = dialogue.Dialogue(prompt, self.v, config.sampling, config.mask)

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
    grown = dialogue.Dialogue(
      document.tokens[:5], assets.vocabulary, config.sampling, config.mask
    )
    grown.tokens = document.tokens.tolist()
    prompts = ~document.responses if causal else None
    block = 3 if audio == 'block' else None
    order = mask.order_groups(len(document.tokens), document.spans, block, prompts)
    np.testing.assert_array_equal(grown.view()[1], mask.group_ends(order))


def test_a_prompt_with_an_unknown_token_is_refused(assets):
  config = make_config()
  for prompt, match in ((np.array([999_999]), 'the prompt: token 999999'), ([], 'empty')):
    with pytest.raises(ValueError, match=match):
      dialogue.Dialogue(prompt, assets.vocabulary, config.sampling, config.mask)


@given(st.integers(1, 40), st.integers(1, 50))
def test_shares_add_up_to_the_block(block, steps):
  shares = [reveal.share(block, steps, step) for step in range(steps)]
  assert sum(shares) == block and max(shares) - min(shares) <= 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=12), st.integers(0, 12))
def test_the_most_confident_masked_tokens_are_revealed(items, count):
  confidence = np.array([c for c, _ in items], float)
  masked = np.array([m for _, m in items], bool)
  chosen = reveal.most_confident(confidence, masked, count)
  assert masked[chosen].all() and len(set(chosen)) == len(chosen)
  assert len(chosen) == min(count, masked.sum())
  left = masked.copy()
  left[chosen] = False
  if len(chosen) and left.any():
    assert confidence[chosen].min() >= confidence[left].max()


def test_drawing_follows_the_softmax_of_the_allowed(assets):
  v = assets.vocabulary
  logits = jax.random.normal(jax.random.key(0), (1, 1, v.size + 5))
  for audio in (False, True):
    allowed = draw.restrict(logits, jnp.array([[audio]]), v)
    keys = jax.random.split(jax.random.key(1), 4000)
    ids, _ = draw.draw(jnp.repeat(allowed, 4000, 0), keys, 1.0)
    ids = np.asarray(ids)[:, 0]
    assert (v.is_audio(ids) == audio).all() and not (ids == v.mask).any()
    assert (ids < v.size).all()
    top = int(allowed.argmax())
    expected = float(jax.nn.softmax(allowed[0, 0])[top])
    assert np.mean(ids == top) == pytest.approx(expected, abs=0.03)


def test_confidence_is_the_probability(assets):
  logits = jnp.log(jnp.array([[[0.2, 0.5, 0.3]]]))
  ids, confidence = draw.draw(logits, jax.random.split(jax.random.key(0), 1), 0.0)
  assert int(ids[0, 0]) == 1
  np.testing.assert_allclose(confidence, 0.5, rtol=1e-6)
