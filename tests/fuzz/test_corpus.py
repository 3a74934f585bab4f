"""No reader falls over what it is given: it takes it, or says in words why not."""

import random
from collections.abc import Iterable

import mutator
import pytest
import target as target_lib
import targets

MUTATIONS = 30


@pytest.fixture(scope='module', params=targets.TARGETS)
def target(request, tmp_path_factory):
  """A target's name, and the target."""
  folder = tmp_path_factory.mktemp(request.param)
  return request.param, targets.TARGETS[request.param](folder)


def feed(target: target_lib.Target, inputs: Iterable[bytes]) -> list[bool]:
  """Which of them the reader takes."""
  taken = []
  with target_lib.within_room():
    for data in inputs:
      with target_lib.within_time():
        taken.append(target_lib.feed(target, data))
  return taken


def test_what_it_is_for_is_taken(target):
  _, made = target
  assert feed(made, made.seeds[:1]) == [True]


def test_what_was_found_before_is_taken_or_refused(target):
  name, made = target
  feed(made, [*made.seeds, *targets.corpus(name), *mutator.HOSTILE])


def test_damage_is_taken_or_refused(target):
  name, made = target
  rng = random.Random(name)
  known = [*made.seeds, *targets.corpus(name)]
  feed(made, (mutator.mutated(rng.choice(known), known, rng) for _ in range(MUTATIONS)))
