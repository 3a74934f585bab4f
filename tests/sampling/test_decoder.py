"""The decoder against the reference, token for token."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import reference
from conftest import make_config
from flax import linen as nn

from ttt_jax import mask as mask_lib
from ttt_jax import vocabulary as vocabulary_lib
from ttt_jax.config import ConfigError, Mask
from ttt_jax.model import transformer
from ttt_jax.sampling import decoder, passes

# So few ids that a random network begins, ends and stops often enough.
VOCABULARY = vocabulary_lib.Vocabulary(
  **{'size': 32, 'audio_start': 12, 'codebook_start': 12, 'codebook_size': 16},
  **{'turn_start': 8, 'turn_end': 9, 'begin_audio': 10, 'begin_last': 11},
  **{'end_prompt': 28, 'end_inner': 29, 'end_last': 30, 'mask': 31, 'tokenizer': 'none'},
)


def test_parameters_made_ready_for_decoding_compute_the_same():
  config = dataclasses.replace(make_config().model, dtype='bfloat16', qkv_bias=True)
  model, ids = transformer.Transformer(config, 32), np.arange(8, dtype=np.int32)[None]
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, 0 * ids, ids + 1)['params'])
  noise = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: leaf + noise.normal(0, 1, leaf.shape), params)
  ready = passes.computed_with(params, 'bfloat16')
  ours, theirs = (
    model.apply({'params': x}, ids, ids, 0 * ids, ids + 1) for x in (ready, params)
  )
  np.testing.assert_array_equal(ours, theirs)


def _both(temperature):
  return {'text_temperature': temperature, 'audio_temperature': temperature}


CASES = {
  'span': (Mask('span', 3, False), {'batch': 5}),
  'many steps': (Mask('span', 3, False), {'steps_per_block': 7, 'block_size': 3}),
  'block within': (Mask('block', 3, True), {'order': 'random', **_both(1.5)}),
  'block equal': (Mask('block', 4, False), {'text_temperature': 1.0}),
  'block around': (Mask('block', 10, True), _both(0.7) | {'top_k': 6, 'top_p': 0.9}),
  'threshold': (Mask('span', 3, True), {'threshold': 0.5, 'block_size': 6}),
  'long': (Mask('span', 3, False), {'max_text': 60, 'max_audio': 30}),
  'guided': (Mask('span', 3, True), {'guidance': 0.8, 'threshold': 0.5, 'batch': 5}),
  'guided blocks': (
    Mask('block', 3, False),
    {'guidance': 2.5, 'audio_temperature': 1.0, 'top_k': 6, 'order': 'random'},
  ),
  'one by one': (Mask('span', 3, False), {'block_size': 1, 'max_audio': 6}),
}
PROMPTS = 24


@functools.cache
def random_network():
  """Weights so large that what is said changes from token to token."""
  config = dataclasses.replace(make_config().model, tied=False)
  model = transformer.Transformer(config, VOCABULARY.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  return model, jax.tree.map(lambda leaf: 2 * leaf if leaf.ndim > 2 else leaf, params)


def prompts(count=PROMPTS, seed=0):
  """Some with audio of a user, ended or not; half of them end by beginning audio."""
  rng, made = np.random.default_rng(seed), []
  for i in range(count):
    heard = [10, *rng.integers(12, 28, rng.integers(1, 5)), *([28] if i % 3 else [])]
    words = rng.integers(0, 8, rng.integers(0, 4))
    began = ([], [10], [], [11])[i % 4]
    made.append(np.array([8, *words, *(heard if i % 5 else []), *began], np.int32))
  return made


def settings(changes):
  small = {'max_text': 16, 'max_audio': 14, 'batch': 3}
  return dataclasses.replace(make_config().sampling, **(small | changes))


@pytest.mark.parametrize('name', CASES)
def test_answers_are_those_of_the_reference(name):
  mask, changes = CASES[name]
  args = (*random_network(), VOCABULARY, settings(changes), mask)
  seeds = list(range(100, 100 + PROMPTS))
  wanted = reference.Decoder(*args)(prompts(), seeds)
  # A few at a time, in another order: places, neighbours and times of arrival all differ.
  order = np.random.default_rng(1).permutation(PROMPTS)
  speak = decoder.Decoder(*args)
  found = speak([prompts()[i] for i in order], [seeds[i] for i in order])
  for i, answer in zip(order, found):
    assert answer.tokens.tolist() == wanted[i].tokens.tolist(), i
    assert answer.complete == wanted[i].complete
  check_coverage(wanted, args[3])
  assert len(speak.compiled) == len(set(speak.compiled)) < 16
  # The network reads everything twice with guidance, and only then.
  readings = 2 if args[3].guidance else 1
  assert max(shape.batch for shape in speak.compiled) == readings * args[3].batch
  lengths = [len(p) + len(a.tokens) for p, a in zip(prompts(), wanted)]
  assert (max(lengths) > 128) == (name == 'long')  # the cache had to grow


def check_coverage(answers, sampling):
  """Everything that can happen happened."""
  spans = [(a.tokens, *span) for a in answers for span in VOCABULARY.spans(a.tokens)]
  assert max(len(VOCABULARY.spans(answer.tokens)) for answer in answers) > 1
  longest = 1 + sampling.max_audio // sampling.block_size * sampling.block_size
  assert {end - start == longest for _, start, end in spans} == {True, False}
  assert {VOCABULARY.end_inner, VOCABULARY.end_last} == {t[end - 1] for t, _, end in spans}
  assert {answer.tokens[-1] == VOCABULARY.turn_end for answer in answers} == {True, False}
  assert {answer.complete for answer in answers} == {True, False}
  assert not any(VOCABULARY.end_prompt in answer.tokens for answer in answers)
  for answer in answers:
    check_grammar(answer, sampling)


def check_grammar(answer, sampling):
  """Text and audio alternate as they must, whatever the weights."""
  tokens, audio = answer.tokens, VOCABULARY.is_audio(answer.tokens)
  assert not (tokens == VOCABULARY.mask).any() and (tokens < VOCABULARY.size).all()
  for start, end in VOCABULARY.spans(tokens):
    assert start == 0 or tokens[start - 1] in (VOCABULARY.begin_audio, VOCABULARY.begin_last)
    assert (
      VOCABULARY.is_end(tokens[end - 1])
      and not VOCABULARY.is_end(tokens[start : end - 1]).any()
    )
    assert end - start <= sampling.max_audio + 1
  begins = np.isin(tokens, (VOCABULARY.begin_audio, VOCABULARY.begin_last))
  followed = np.append(audio[1:], True)
  assert followed[begins].all()
  assert (~audio).sum() <= sampling.max_text
  if answer.complete:
    assert tokens[-1] == VOCABULARY.turn_end


def test_answers_do_not_depend_on_the_batch():
  mask, changes = CASES['block equal']
  args = (*random_network(), VOCABULARY)
  said = []
  for batch in (1, 4):
    speak = decoder.Decoder(*args, settings(changes | {'batch': batch}), mask)
    said.append([answer.tokens.tolist() for answer in speak(prompts(4))])
  assert said[0] == said[1] and speak([]) == []


OWN = (
  _both(1.3),
  {'steps_per_block': 1},
  {'threshold': 0.3, 'max_audio': 6},
  {'steps_per_block': 9, 'audio_temperature': 0.5, 'max_text': 5},
)


@pytest.mark.parametrize('name', ['span', 'guided blocks'])
def test_prompts_may_have_settings_of_their_own(name):
  mask, changes = CASES[name]
  # In random order there is no threshold.
  own = OWN if name == 'span' else OWN[:2]
  args, count = (*random_network(), VOCABULARY), 3 * len(own)
  of_each = [settings(changes | own[i % len(own)]) for i in range(count)]
  chosen, seeds = prompts(count, seed=4), list(range(40, 40 + count))
  found = decoder.Decoder(*args, settings(changes), mask)(chosen, seeds, of_each)
  for first, one in enumerate(of_each[: len(own)]):
    mine = slice(first, None, len(own))
    wanted = reference.Decoder(*args, one, mask)(chosen[mine], seeds[mine])
    for answer, expected in zip(found[mine], wanted):
      assert answer.tokens.tolist() == expected.tokens.tolist(), one
      assert answer.complete == expected.complete
  # They matter.
  plain = decoder.Decoder(*args, settings(changes), mask)(chosen, seeds)
  assert sum(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(found, plain)) > count / 3


def test_settings_that_all_must_share_are_refused():
  limits, mask = settings({}), Mask('span', 3, False)
  speak = decoder.Decoder(*random_network(), VOCABULARY, limits, mask)
  prompt, other = np.array([8], np.int32), settings({'top_k': 3, 'text_temperature': 1.0})
  with pytest.raises(ConfigError, match='prompt 0: its settings differ .*steps_per_block'):
    speak([prompt], [0], [other])
  with pytest.raises(ConfigError, match='the prompt: its settings'):
    next(speak.stream(prompt, 0, other))
  with pytest.raises(ConfigError, match='prompt 0: its seed, 4294967296, is not in'):
    speak([prompt], [2**32])


@pytest.mark.parametrize('guidance', [0.0, 1.0])
def test_a_cache_grows_in_the_middle_of_a_span(guidance):
  # Nothing but the end of the cache, at 128, interrupts the passes.
  rng = np.random.default_rng(3)
  chosen = [np.append(rng.integers(0, 8, 118), 10).astype(np.int32) for _ in range(12)]
  changes = {'batch': 1, 'max_audio': 24, 'max_text': 4, 'guidance': guidance}
  args = (*random_network(), VOCABULARY)
  args = (*args, settings(changes), Mask('block', 4, False))
  wanted = reference.Decoder(*args)(chosen)
  for answer, expected in zip(decoder.Decoder(*args)(chosen), wanted):
    assert answer.tokens.tolist() == expected.tokens.tolist()
  ends = [VOCABULARY.spans(answer.tokens)[0, 1] for answer in wanted]
  assert sum(119 + end > 128 for end in ends) > 1


def test_guidance_changes_nothing_where_there_is_no_condition():
  # Begins and what the model said itself are none; in the last two, there is some.
  bare = [[10], [11], [10, 13, 17, 29, 11], [11, 15, 15, 30, 10, 22, 29, 10]]
  given = [[3, 10], [10, 13, 17, 28, 11]]
  chosen = [np.array(prompt, np.int32) for prompt in (*bare, *given)]
  said = []
  for scale in (0.0, 30.0):
    limits = settings({'guidance': scale, 'max_text': 1, 'batch': 8})
    speak = decoder.Decoder(*random_network(), VOCABULARY, limits, Mask('block', 3, True))
    said.append([answer.tokens.tolist() for answer in speak(chosen)])
  assert [a == b for a, b in zip(*said)] == [True] * len(bare) + [False] * len(given)


def test_seeds_make_the_difference():
  mask, changes = CASES['block equal']
  speak = decoder.Decoder(*random_network(), VOCABULARY, settings(changes), mask)
  chosen = prompts(4)[3:] * 4
  said = [answer.tokens.tolist() for answer in speak(chosen, [5, 6, 5, 7])]
  assert said[0] == said[2] and said[0] != said[1] != said[3]
  compiled = list(speak.compiled)
  assert [answer.tokens.tolist() for answer in speak(chosen, [5, 6, 5, 7])] == said
  assert speak.compiled == compiled


def test_the_greedy_words_are_what_the_network_says():
  # The oracle: one token at a time, the whole sequence through the network each time.
  model, params = random_network()
  network = jax.jit(model.apply)
  speak = decoder.Decoder(model, params, VOCABULARY, settings({}), Mask('span', 3, False))
  for prompt in prompts(3)[::2]:
    tokens = prompt.tolist()
    for wanted in speak([prompt])[0].tokens:
      if VOCABULARY.is_audio(wanted):
        break
      (ids, ends), where = np.zeros((2, 1, 32), int), np.arange(32)[None]
      groups = mask_lib.order_groups(len(tokens), VOCABULARY.spans(np.array(tokens)))
      ids[0, : len(tokens)], ends[0, : len(tokens)] = tokens, mask_lib.group_ends(groups)
      logits = network({'params': params}, ids, where, where * 0, ends)[0, len(tokens) - 1]
      assert int(logits[: VOCABULARY.audio_start].argmax()) == wanted
      tokens.append(int(wanted))
    assert len(tokens) > len(prompt)


@pytest.mark.parametrize('name', ['span', 'block equal', 'guided'])
def test_events_are_the_answer_as_it_becomes_final(name):
  mask, changes = CASES[name]
  speak = decoder.Decoder(*random_network(), VOCABULARY, settings(changes | {'batch': 1}), mask)
  kinds = set()
  for number, prompt in enumerate(prompts(4)):
    (answer,) = speak([prompt], [number])
    *events, done = speak.stream(prompt, number)
    assert done.kind == 'done' and done.complete == answer.complete
    kinds |= {event.kind for event in events}
    tokens = answer.tokens
    assert np.concatenate([e.tokens for e in events]).tolist() == [
      *tokens[~VOCABULARY.is_end(tokens)]
    ]
    position = 0
    for event in events:
      if event.kind == 'end':
        assert VOCABULARY.is_end(tokens[position])
        position += 1
      else:
        assert len(event.tokens) <= (4 if event.kind == 'audio' else 1)
        assert (VOCABULARY.is_audio(event.tokens) == (event.kind == 'audio')).all()
        position += len(event.tokens)
  assert kinds == {'text', 'audio', 'end'}


def test_a_begin_token_that_ends_the_budget_ends_the_answer():
  def speaker(limit):
    limits = settings({'max_text': limit})
    return decoder.Decoder(*random_network(), VOCABULARY, limits, Mask('span', 3, False))

  chosen = prompts(8)
  said = [answer.tokens for answer in speaker(16)(chosen)]
  begins = [np.flatnonzero(np.isin(tokens, (10, 11))) for tokens in said]
  number = next(i for i, places in enumerate(begins) if len(places))
  wanted = said[number][: begins[number][-1] + 1]
  speak = speaker(int((~VOCABULARY.is_audio(wanted)).sum()))
  (cut,) = speak([chosen[number]], [number])
  assert cut.tokens.tolist() == wanted.tolist() and not cut.complete
  *_, last, done = speak.stream(chosen[number], number)
  assert last.kind == 'text' and last.tokens[-1] in (10, 11)
  assert done.kind == 'done' and not done.complete


@pytest.mark.parametrize(
  'prompt,match',
  [
    ([8, 32], 'prompt 1: token 32'),
    ([8, -1], 'prompt 1: token -1'),
    ([31], 'prompt 1: token 31 at position 0 is the mask'),
    ([], 'prompt 1 is empty'),
    ([8] * 41, 'prompt 1 has 41 tokens.*config.sampling.max_prompt, 40'),
  ],
)
def test_prompts_that_cannot_be_answered_are_refused(prompt, match):
  limits = settings({'max_prompt': 40})
  speak = decoder.Decoder(*random_network(), VOCABULARY, limits, Mask('span', 3, False))
  with pytest.raises(vocabulary_lib.VocabularyError, match=match):
    speak([np.array([8] * 40), np.array(prompt, int)])
  with pytest.raises(
    vocabulary_lib.VocabularyError, match=match.replace('prompt 1', 'the prompt')
  ):
    next(speak.stream(np.array(prompt, int)))
