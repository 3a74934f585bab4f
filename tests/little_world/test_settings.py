import pytest

from data_pipelines.little_world import prepare
from ttt_jax import errors

GOOD = dict(world='sums', voices=1, strings=2, tests=1, codes=32, frames=4, seed=0)


@pytest.mark.parametrize(
  'name,value,most',
  [
    ('voices', 0, 4),
    ('voices', 9, 4),
    ('strings', -1, 1_000_000),
    ('tests', -1, 999_998),
    ('tests', 999_999, 999_998),
    ('codes', 0, 40_000),
    ('codes', 100_000, 40_000),
    ('frames', 0, 100),
    ('frames', 101, 100),
    ('seed', -1, 2**32 - 1),
  ],
)
def test_a_world_that_cannot_be_is_refused_before_anybody_speaks(name, value, most):
  with pytest.raises(errors.UserError, match=f'--{name}={value}: .* and {most}$'):
    prepare.Settings(**GOOD | {name: value})


def test_too_little_speech_for_so_many_codes_names_the_flag(tmp_path):
  settings = prepare.Settings(**GOOD | {'codes': 500}, fit_clips=3)
  with pytest.raises(errors.UserError, match='--codes=500: 3 recordings hold .* too few'):
    prepare.prepare(tmp_path / 'data', settings)
  assert not list(tmp_path.iterdir())
