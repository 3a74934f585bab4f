import json
import sys
import types

import numpy as np
import pytest
from conftest import make_config

from data_pipelines.stream import loader, rows
from ttt_jax import losses
from ttt_jax.model import formula
from ttt_jax.training import metrics

SPENT = {'step': 6.0, 'start': 50.0, 'compile': 0.0, 'data': 2.0, 'save': 1.0, 'rest': 1.0}
SPENT |= {'evaluate': 70.0}


@pytest.fixture(scope='module')
def batch(source):
  config = make_config()
  made = rows.Rows([source], config.data, config.mask, config.objective, 0)
  (batch,) = loader.batches(made, config.data.batch_size, 1)
  return batch


def sums_of(batch) -> losses.Sums:
  """Those that speed depends on; all targets are text, but for seven."""
  zero, bins = np.zeros(()), np.zeros(losses.NOISE_BINS)
  bins[[3, 9]] = 3, 4
  return losses.Sums(
    *(zero, zero, zero, (batch.weights > 0).sum() - 7, bins, bins, bins),
    positions=np.asarray(batch.inputs.size),
    filled=(batch.kv_end > batch.kv_start).sum(),
    visible=(batch.kv_end - batch.kv_start).sum(),
  )


def test_speed_is_of_all_time_but_what_comes_once(batch):
  yardstick = metrics.Yardstick(make_config().model, 450, None)
  figures = metrics.speed(sums_of(batch), 3, SPENT, yardstick)
  filled = (batch.kv_end > batch.kv_start).sum()
  wanted = {'step_seconds': 2.0, 'tokens_per_second': filled / 10, 'data_wait': 0.2}
  assert figures == wanted
  compiling = metrics.speed(sums_of(batch), 3, SPENT | {'compile': 9.0}, yardstick)
  assert compiling == figures | {'compile_seconds': 9.0}


def test_mfu_is_what_the_formula_says_of_the_batch(batch):
  model = make_config().model
  operations = formula.training(model, 450, formula.measured(batch)) * batch.inputs.size
  # Devices that could do twice as much in the ten seconds.
  yardstick = metrics.Yardstick(model, 450, 2 * operations / 10)
  found = metrics.speed(sums_of(batch), 3, SPENT, yardstick)['mfu']
  np.testing.assert_allclose(found, 0.5)


def test_memory_is_that_of_the_fullest_device_where_devices_tell():
  def device(stats):
    return types.SimpleNamespace(memory_stats=lambda: stats)

  full = device({'bytes_in_use': 5, 'peak_bytes_in_use': 6})
  other = device({'bytes_in_use': 3, 'peak_bytes_in_use': 9})
  assert metrics.memory([full, other]) == {'device_memory': 5, 'device_memory_peak': 9}
  assert metrics.memory([device({'bytes_in_use': 5})]) == {'device_memory': 5}
  assert metrics.memory([device(None)]) == {}


class Gone:
  """The console of somebody who went away."""

  def write(self, text):
    raise BrokenPipeError

  flush = isatty = lambda self: False


class Book:
  def note(self, step):
    pass


def test_reports_stand_once_in_order_and_nobody_needs_to_see_them(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'stderr', Gone())
  path = tmp_path / metrics.FILE

  def start(step, *reports):
    writer = metrics.Writer(tmp_path, 9, step, Book())
    for number, value in reports:
      writer.advance()
      writer.write(number, {'audio_loss': value, 'tokens_per_second': 1})
    writer.close()
    with path.open('a') as lines:
      lines.write('{"step": 9, "los')  # it was killed

  def values(path):
    return [(line['step'], line['audio_loss']) for line in map(json.loads, path.open())]

  start(0, (1, 0), (2, 0), (3, 0), (4, 0))
  start(2, (3, 1), (4, 1))
  start(4)
  path.write_text(path.read_text()[: path.read_text().rfind('{')])
  assert values(path) == [(1, 0), (2, 0), (3, 1), (4, 1)]
  aside = (tmp_path / metrics.REDONE).read_text().splitlines()
  assert [line[:10] for line in aside] == ['{"step": 3', '{"step": 4', *['{"step": 9'] * 2]
