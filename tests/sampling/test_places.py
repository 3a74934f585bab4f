"""Requests that come and go: what each is told is what it is told alone."""

import functools

import jax
import numpy as np
import pytest
from test_decoder import CASES, VOCABULARY, prompts, random_network, settings

from ttt_jax.config import Mask
from ttt_jax.sampling import decoder


def make(name='span', **changes):
  mask, more = CASES[name]
  limits = settings(more | changes)
  return decoder.Decoder(*random_network(), VOCABULARY, limits, mask)


def collect(places, into, drafts=()):
  for key, event in places.events(drafts):
    into.setdefault(key, []).append(event)


def tokens_of(events):
  return np.concatenate([e.tokens for e in events if e.kind != 'draft']).tolist()


@functools.cache
def alone(name):
  """What each of some prompts is told by itself."""
  speak, chosen = make(name, batch=4), prompts(16, seed=2)
  return speak, chosen, [list(speak.stream(prompt, i)) for i, prompt in enumerate(chosen)]


@pytest.mark.parametrize('limit', [1, 3])
def test_events_do_not_depend_on_who_comes_and_goes(limit):
  (speak, chosen, wanted), rng = alone('block equal'), np.random.default_rng(limit)
  places, waiting, found, gone = speak.places(4, 8), list(enumerate(chosen)), {}, set()
  while waiting or len(places):
    if waiting and places.free and rng.random() < 0.5:
      number, prompt = waiting.pop()
      places.admit([(number, speak.request(prompt, number))])
    places.run(limit)
    collect(places, found)
    if rng.random() < 0.1 and len(found) > len(gone):
      gone.add(int(rng.choice([n for n in found if n not in gone])))
      places.drop(gone)
  assert 0 < len(gone) < 12
  for number, told in found.items():
    whole = tokens_of(wanted[number])
    if number in gone:
      assert tokens_of(told) == whole[: len(tokens_of(told))]
    else:
      assert tokens_of(told) == whole
      assert (told[-1].kind, told[-1].complete) == ('done', wanted[number][-1].complete)


def test_the_place_of_one_who_left_is_free():
  speak, *_ = alone('block equal')
  places, (first, second, third) = speak.places(2, 8), prompts(3)
  places.admit([('a', speak.request(first)), ('b', speak.request(second, 1))])
  assert (len(places), places.free) == (2, 0)
  places.drop({'a', 'unknown'})
  assert (len(places), places.free) == (1, 1)
  places.admit([('c', speak.request(third, 2))])
  told = {}
  while len(places):
    places.run(1)
    collect(places, told)
  assert set(told) == {'b', 'c'}
  places.admit([('d', speak.request(first))])
  places.drop({'d'})
  before = speak.passes
  places.run()  # nobody is there to run for
  assert speak.passes == before
  assert tokens_of(told['c']) == tokens_of(speak.stream(third, 2))


def test_drafts_show_each_step_of_a_block():
  mask = Mask('span', 3, False)
  limits = settings({'block_size': 6, 'steps_per_block': 3, 'max_audio': 12})
  speak = decoder.Decoder(*random_network(), VOCABULARY, limits, mask)
  places, told = speak.places(2, 8), {}
  asked = speak.request(np.array([8, 3, 10], np.int32))
  places.admit([('seen', asked), ('unseen', asked)])
  while len(places):
    collect(places, told, drafts={'seen'})
    places.run(1)
  assert tokens_of(told['seen']) == tokens_of(told['unseen'])
  assert not any(event.kind == 'draft' for event in told['unseen'])
  before, blocks = None, 0
  for event in told['seen']:
    hidden = event.tokens == VOCABULARY.mask
    if event.kind == 'draft':
      assert len(event.tokens) == 6 and hidden.any()
      if before is not None:  # two more are shown, and those that were shown stay
        shown = before != VOCABULARY.mask
        assert (event.tokens[shown] == before[shown]).all()
        assert hidden.sum() == 6 - shown.sum() - 2
      before = event.tokens
    elif before is not None:  # what has become final is what was shown
      shown = before[: len(event.tokens)] != VOCABULARY.mask
      assert (event.tokens[shown] == before[: len(event.tokens)][shown]).all()
      assert (before != VOCABULARY.mask).sum() == 4
      before, blocks = None, blocks + 1
  assert blocks > 1


@pytest.mark.parametrize('committed', [False, True])
def test_what_was_compiled_ahead_is_all_that_is_needed(caplog, committed):
  model, params = random_network()
  if committed:  # as it comes from a file
    params = jax.device_put(params, jax.devices()[0])
  limits = settings({'batch': 4, 'max_audio': 8, 'max_text': 6})
  speak = decoder.Decoder(model, params, VOCABULARY, limits, Mask('span', 3, False))
  places, chosen, told = speak.places(4, 8), prompts(4), {}
  places.warm(8)
  assert len(speak.compiled) == len(set(speak.compiled)) and speak.passes == 0
  with jax.log_compiles():
    for number, prompt in enumerate(chosen):
      places.admit([(number, speak.request(prompt, number))])
    while len(places):
      places.run(1)
      collect(places, told)
    places.admit([(number, speak.request(prompt)) for number, prompt in enumerate(chosen)])
  assert not [line for line in caplog.messages if '_rows' in line]
  assert all(told[number][-1].kind == 'done' for number in range(4))


def test_what_a_long_answer_needed_is_given_back():
  speak = make('long', batch=2)
  places, long = speak.places(2, 8), np.full(150, 3, np.int32)
  lengths = []
  for prompt in (prompts(1)[0], long, prompts(1)[0]):
    places.admit([('x', speak.request(prompt))])
    lengths.append(places._state.cache.length)
    while len(places):
      places.run()
      list(places.ended())
  assert lengths[0] == lengths[2] == 128 and lengths[1] > 128
