"""No reader falls over what it is given: it takes it, or says in words why not."""

import random

import mutator
import pytest
import target as target_lib
import targets

MUTATIONS = 40


@pytest.fixture(scope='module', params=targets.TARGETS)
def target(request, tmp_path_factory):
  made = targets.TARGETS[request.param](tmp_path_factory.mktemp(request.param))
  return request.param, made


def test_seeds_are_read(target):
  name, made = target
  assert target_lib.feed(made, made.seeds[0])


def test_what_was_found_before(target):
  name, made = target
  with target_lib.bounded():
    for data in (*made.seeds, *targets.corpus(name), *mutator.HOSTILE):
      target_lib.feed(made, data)


def test_mutations(target):
  name, made = target
  rng = random.Random(name)
  known = [*made.seeds, *targets.corpus(name)]
  with target_lib.bounded():
    for _ in range(MUTATIONS):
      target_lib.feed(made, mutator.mutated(rng.choice(known), known, rng))
