"""No reader falls over what it is given: it takes it, or says in words why not."""

import contextlib
import random
from collections.abc import Iterable

import mutator
import pytest
import target as target_lib
import targets

from data_pipelines import records

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


@pytest.mark.parametrize(
  'name,refused', [('json_lines', 0), ('manifest', 0), ('json_list', 3), ('table', 0)]
)
def test_seeds_are_records_of_which_none_is_rejected(name, refused, tmp_path):
  made = targets.TARGETS[name](tmp_path)
  whole = []
  for seed in made.seeds:
    with contextlib.suppress(*made.refusals):
      whole.append(made.read(seed))
  assert len(whole) == len(made.seeds) - refused  # packed files, and those in UTF-16
  for found in whole:
    assert found and all(isinstance(each, records.Record) for each in found), found


def test_what_was_found_before_is_taken_or_refused(target):
  name, made = target
  feed(made, [*made.seeds, *targets.corpus(name), *mutator.HOSTILE])


def test_damage_is_taken_or_refused(target):
  name, made = target
  rng = random.Random(name)
  known = [*made.seeds, *targets.corpus(name)]
  feed(made, (mutator.mutated(rng.choice(known), known, rng) for _ in range(MUTATIONS)))
