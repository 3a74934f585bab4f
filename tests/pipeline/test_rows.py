import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import make_config
from machines import by_linux

from data_pipelines import records
from data_pipelines.stream import loader, mixture, rows, workers
from ttt_jax import batch as batch_lib
from ttt_jax import mask


def stream(source, seed=0, **changes):
  config = make_config(**changes)
  return rows.Rows([source], config.data, config.mask, config.objective, seed)


def mixed(toy_data, **changes):
  """Two data sets, of which the second is the first once more."""
  config = make_config(data__directory=f'{toy_data},{toy_data}', data__window=20, **changes)
  sources = mixture.open_all(config.data)
  return rows.Rows(sources, config.data, config.mask, config.objective, 0)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def equal(batch, other):
  return all(np.array_equal(a, b) for a, b in zip(batch, other))


def test_documents_do_not_see_each_other_and_nothing_is_lost(source, documents):
  made = stream(source, objective__sst=0.0, objective__banom=1.0)
  found = []
  for index in range(len(made.plan.window(0))):  # an epoch, since it is shorter than a window
    row = made[index]
    batch_lib.check(batch_lib.Batch(*(np.asarray(x)[None] for x in row)), 10**6)
    for start in np.flatnonzero((row.positions == 0) & (row.kv_end > row.kv_start)):
      size = int(np.sum((row.kv_start == start) & (row.kv_end > row.kv_start)))
      inside = slice(start, start + size)
      found.append(tuple(row.inputs[inside]))
      assert row.positions[inside].tolist() == list(range(size))
      assert row.kv_end[inside].max() == start + size
  fitting = [d for d in documents if len(d.tokens) <= 128]
  assert sorted(found) == sorted(tuple(d.tokens) for d in fitting)
  assert made.plan.decks[0].too_long == len(documents) - len(fitting)


def test_records_that_are_longer_than_planned_are_an_error_in_words(toy_data):
  source = records.Source(toy_data, 'train')
  short = source.shapes._replace(lengths=np.ones_like(source.shapes.lengths))
  source.__dict__['shapes'] = short
  source.fingerprint = 'of others'  # what is planned with them is kept for no other test
  with pytest.raises(records.DataError, match='longer than .*cache says'):
    stream(source, objective__sst=0.0)[0]


@pytest.mark.parametrize('audio,causal', [('span', False), ('block', False), ('span', True)])
def test_rows_carry_the_mask_of_the_rule(source, assets, audio, causal):
  made = stream(
    source,
    mask__audio=audio,
    mask__block_size=3,
    mask__causal_prompt=causal,
    objective__sst=0.0,
  )
  window = made.plan.window(0)
  row = made[0]
  document_of, groups = np.full(128, -1), np.zeros(128, int)
  at = 0
  for number in window.records[: window.offsets[1]]:
    document = source[int(number)].document
    size = len(document.tokens)
    prompts = ~document.responses if causal else None
    order = mask.order_groups(size, document.spans, 3 if audio == 'block' else None, prompts)
    document_of[at : at + size], groups[at : at + size] = number, order
    at += size
  keys = np.arange(128)
  seen = (keys >= row.kv_start[:, None]) & (keys < row.kv_end[:, None])
  np.testing.assert_array_equal(seen, mask.visible(document_of, groups))


@pytest.mark.parametrize(
  'shares,threads,workers',
  [
    ([range(8)], 3, 0),
    ([range(4), range(4, 8)], 1, 0),
    ([[0, 1, 4, 5], [2, 3, 6, 7]], 2, 0),
    ([range(8)], 1, 2),
    ([[0, 7], range(1, 7)], 2, 1),
  ],
)
def test_the_stream_is_the_same_for_any_processes_threads_and_workers(
  toy_data, shares, threads, workers
):
  def batches(**how):
    made = mixed(toy_data, data__weights=(3.0, 1.0), data__changes=((4, (0.0, 1.0)),))
    return take(loader.batches(made, 8, 20, start=3, **how), 5)

  whole = batches()
  for own in shares:
    for found, wanted in zip(batches(own=own, threads=threads, workers=workers), whole):
      assert equal(found, [array[list(own)] for array in wanted])


def test_starting_later_gives_what_an_uninterrupted_run_gives(toy_data):
  settings = {'data__temperature': 2.0, 'data__changes': ((150, (1.0, 3.0)),)}
  whole = list(loader.batches(mixed(toy_data, **settings), 8, 204))
  for start in (7, 149, 151, 199):  # some epochs away
    later = list(loader.batches(mixed(toy_data, **settings), 8, start + 5, start=start))
    assert len(later) == 5
    assert all(equal(a, b) for a, b in zip(whole[start:], later))


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(source):
  wanted = take(loader.batches(stream(source), 8, 60), 60)
  batches = loader.batches(stream(source), 8, 60, workers=2)
  got = take(batches, 2)
  killed = multiprocessing.active_children()[0]
  killed.kill()
  got += list(batches)
  assert len(got) == 60 and all(equal(a, b) for a, b in zip(got, wanted))
  assert not killed.is_alive()


class Deadly:
  """Rows that kill the process that wants one of them."""

  def __init__(self, rows, at):
    self.plan, self._rows, self._at = rows.plan, rows, at

  def __getitem__(self, index):
    if index >= self._at:
      os.kill(os.getpid(), signal.SIGKILL)
    return self._rows[index]


def test_workers_that_die_again_and_again_end_the_run_with_a_reason(source):
  batches = loader.batches(Deadly(stream(source), 3 * 8), 8, 10**6, workers=1)
  with pytest.raises(workers.WorkerError, match='data.workers.*exit code -9'):
    take(batches, 10)
  assert not multiprocessing.active_children()


ORPHANED = """
import multiprocessing, os, signal, sys
from absl import flags
from configs import base
from data_pipelines import records
from data_pipelines.stream import loader, rows
from ttt_jax import config
if __name__ == '__main__':
  flags.FLAGS.mark_as_parsed()
  c = config.from_config_dict(base.get_config())
  source = records.Source(sys.argv[1], 'train')
  made = rows.Rows([source], c.data, c.mask, c.objective, 0)
  batches = loader.batches(made, 8, 10**6, workers=1)
  next(batches)
  print(multiprocessing.active_children()[0].pid, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""


@by_linux
def test_workers_end_with_a_process_that_is_killed(toy_data, tmp_path):
  (tmp_path / 'main.py').write_text(ORPHANED)
  command = [sys.executable, tmp_path / 'main.py', toy_data]
  with (tmp_path / 'said').open('w') as said:  # no pipe: the worker would hold it open
    code = subprocess.run(command, stdout=said, timeout=120, check=False).returncode
  assert code == -signal.SIGKILL
  worker, end = (tmp_path / 'said').read_text().strip(), time.monotonic() + 60
  while os.path.exists(f'/proc/{worker}'):
    assert time.monotonic() < end, 'the worker is still there'
    time.sleep(0.05)


def test_an_error_in_a_worker_comes_through(source):
  made = stream(source)
  made._documents = [None]
  with pytest.raises(TypeError, match='not subscriptable'):
    next(loader.batches(made, 8, 10, workers=1))


def test_many_threads_on_many_epochs_lose_nothing(source):
  made = stream(source, data__row_length=256)
  rows_of_epoch = len(made.plan.window(0))
  indices = [i * rows_of_epoch % (12 * rows_of_epoch) for i in range(60)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    together = list(pool.map(made.__getitem__, indices))
  alone = stream(source, data__row_length=256)
  for index, row in zip(indices, together):
    np.testing.assert_array_equal(row.inputs, alone[index].inputs)


def drawn(made, source, windows=12):
  """Documents of some windows, with what is drawn for each."""
  for number in range(windows):
    window = made.plan.window(number)
    for place, record in zip(window.places.tolist(), window.records.tolist()):
      document = source[record].document
      yield document, made._draw(0, place, document, 0.5)


def test_strategies_have_their_probabilities(source):
  made = stream(source, data__row_length=256, objective__ppm=0.7)
  clean, kept, cuts, uniforms = [], [], [], []
  for number in range(12):
    window = made.plan.window(number)
    eligible = source.shapes.last_codes[window.records] > 10
    assert not window.cuts[~eligible].any()
    cuts += (window.cuts[eligible] > 0).tolist()
  for document, draws in drawn(made, source):
    clean.append(draws.banom)
    uniforms.append(draws.uniforms)
    if document.responses.sum() == 2:
      kept.append(draws.keep)  # 0 or 1 with equal chance, where PPM applies
  assert np.mean(clean) == pytest.approx(0.3, abs=0.06)
  assert np.mean(cuts) == pytest.approx(0.5, abs=0.1)
  assert np.mean(kept) == pytest.approx(0.35, abs=0.12) and set(kept) == {0, 1}
  every = np.concatenate(uniforms)
  assert len(np.unique(every)) == len(every)  # nobody's draws are another's
  assert np.mean(every) == pytest.approx(0.5, abs=0.01)


def test_draws_belong_to_a_place_of_a_data_set(toy_data, source):
  made, document = mixed(toy_data), source[0].document
  draws = [
    made._draw(which, place, document, 0.5).uniforms
    for which, place in ((0, 1), (0, 2), (1, 1), (1, 2), (0, 2**40))
  ]
  for index, one in enumerate(draws):
    for other in draws[:index]:
      assert not np.intersect1d(one, other).size
  np.testing.assert_array_equal(made._draw(1, 2, document, 0.5).uniforms, draws[3])


def test_conditions_are_dropped_with_their_probability_and_nothing_else_is_drawn(source):
  plain, made = (stream(source, objective__condition_dropout=p) for p in (0.0, 0.4))
  dropped = []
  for (document, was), (_, now) in zip(drawn(plain, source), drawn(made, source)):
    for field in ('time', 'uniforms', 'banom', 'keep'):
      np.testing.assert_array_equal(getattr(now, field), getattr(was, field))
    assert not was.dropped
    if now.banom or not document.responses.any():
      assert not now.dropped
    else:
      dropped.append(now.dropped)
  assert len(dropped) > 200 and np.mean(dropped) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize('normalization', ['document', 'token'])
def test_rows_without_condition_keep_mask_and_audio(source, assets, normalization):
  settings = {'objective__normalization': normalization, 'objective__banom': 0.2}
  plain, made = (stream(source, objective__condition_dropout=p, **settings) for p in (0.0, 1.0))
  silent = 0
  for index in range(len(plain.plan.window(0))):
    was, now = plain[index], made[index]
    for field in ('positions', 'kv_start', 'kv_end', 'noise'):
      np.testing.assert_array_equal(getattr(now, field), getattr(was, field))
    audio = was.noise > 0
    np.testing.assert_array_equal(now.weights[audio], was.weights[audio])
    np.testing.assert_array_equal(now.targets[audio], was.targets[audio])
    for start in np.unique(was.kv_start[was.kv_end > was.kv_start]):
      inside = (was.kv_start == start) & (was.kv_end > was.kv_start)
      # Whole documents change, or nothing of them: there is audio to train, or there is not.
      if (now.inputs != was.inputs)[inside].any():
        assert not now.weights[inside & ~audio].any()
        silent += 1
      else:
        np.testing.assert_array_equal(now.weights[inside], was.weights[inside])
    if normalization == 'document':
      assert now.normalizer == was.normalizer
    else:
      texts = [(row.weights > 0) & (row.noise == 0) for row in (was, now)]
      assert was.normalizer - now.normalizer == texts[0].sum() - texts[1].sum()
  assert silent > 10


def test_times_cover_every_stretch_evenly(source):
  made = stream(source, objective__banom=0.0, objective__ppm=0.0, objective__epsilon=1e-6)
  levels = []
  for index in range(40):
    row = made[index]
    for start in np.flatnonzero((row.positions == 0) & (row.kv_end > row.kv_start)):
      level = row.noise[row.kv_start == start].max()
      if level > 0:
        levels.append(level)
  # Independent draws would miss by about 0.3 / sqrt(n).
  assert np.mean(levels) == pytest.approx(0.5, abs=0.06)


def test_rows_that_fit_nothing_are_refused(source):
  with pytest.raises(records.DataError, match='none of the 60 records.*row_length=4'):
    stream(source, data__row_length=4)


def test_check_finds_contradictions(source):
  row = stream(source)[0]
  good = batch_lib.Batch(*(np.asarray(x)[None] for x in row))
  batch_lib.check(good, 10**6)
  for change in (
    {'kv_end': good.kv_end + 128},
    {'kv_end': np.minimum(good.kv_end, np.arange(128))},
    {'targets': good.targets - 1},
    {'weights': good.weights[:, :5]},
    {'weights': good.weights - 1},
  ):
    with pytest.raises(ValueError):
      batch_lib.check(good._replace(**change), 10**6)


def test_normalizer_counts_documents_or_tokens(source):
  by_document = stream(source, objective__sst=0.0)
  assert by_document[0].normalizer == by_document.plan.window(0).offsets[1]
  by_token = stream(source, objective__sst=0.0, objective__normalization='token')
  row = by_token[0]
  assert row.normalizer >= (row.weights > 0).sum()
