import concurrent.futures
import dataclasses

import numpy as np
import pytest
from conftest import make_config

from data_pipelines import loader, records, rows
from ttt_jax import batch as batch_lib
from ttt_jax import mask


def stream(source, seed=0, **changes):
  config = make_config(**changes)
  return rows.Rows(source, config.data, config.mask, config.objective, seed)


def take(iterator, count):
  return [next(iterator) for _ in range(count)]


def test_documents_do_not_see_each_other_and_nothing_is_lost(source, documents):
  made = stream(source, objective__sst=0.0, objective__banom=1.0)
  found = []
  for index in range(len(made.plan(0))):
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
  assert made.too_long == len(documents) - len(fitting)


@pytest.mark.parametrize('audio,causal', [('span', False), ('block', False), ('span', True)])
def test_rows_carry_the_mask_of_the_rule(source, assets, audio, causal):
  made = stream(
    source,
    mask__audio=audio,
    mask__block_size=3,
    mask__causal_prompt=causal,
    objective__sst=0.0,
  )
  plan = made.plan(0)
  row = made[0]
  document_of, groups = np.full(128, -1), np.zeros(128, int)
  at = 0
  for number in plan.records[: plan.offsets[1]]:
    document = source[int(number)].document
    size = len(document.tokens)
    prompts = ~document.responses if causal else None
    order = mask.order_groups(size, document.spans, 3 if audio == 'block' else None, prompts)
    document_of[at : at + size], groups[at : at + size] = number, order
    at += size
  keys = np.arange(128)
  seen = (keys >= row.kv_start[:, None]) & (keys < row.kv_end[:, None])
  np.testing.assert_array_equal(seen, mask.visible(document_of, groups))


def test_the_stream_is_the_same_for_any_number_of_processes_and_threads(source):
  def batches(process, processes, threads):
    return take(
      loader.batches(
        stream(source), 8, 20, process=process, processes=processes, threads=threads
      ),
      6,
    )

  whole = batches(0, 1, 1)
  for processes, threads in ((1, 3), (2, 1), (4, 2)):
    parts = [batches(process, processes, threads) for process in range(processes)]
    for step, wanted in enumerate(whole):
      for field in batch_lib.Batch._fields:
        merged = np.concatenate([getattr(part[step], field) for part in parts])
        np.testing.assert_array_equal(merged, getattr(wanted, field))


def test_starting_later_gives_what_an_uninterrupted_run_gives(source):
  whole = take(loader.batches(stream(source), 8, 12), 12)
  later = list(loader.batches(stream(source), 8, 12, start=7))
  assert len(later) == 5
  for a, b in zip(whole[7:], later):
    for x, y in zip(a, b):
      np.testing.assert_array_equal(x, y)


def test_many_threads_on_many_epochs_lose_nothing(source):
  made = stream(source, data__row_length=256)
  rows_of_epoch = len(made.plan(0))
  indices = [i * rows_of_epoch % (12 * rows_of_epoch) for i in range(60)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    together = list(pool.map(made.__getitem__, indices))
  alone = stream(source, data__row_length=256)
  for index, row in zip(indices, together):
    np.testing.assert_array_equal(row.inputs, alone[index].inputs)


def test_epochs_and_seeds_differ_and_epochs_hold_every_record(source):
  made = stream(source)
  first, second = made.plan(0), made.plan(1)
  assert sorted(first.records) == sorted(second.records)
  assert first.records.tolist() != second.records.tolist()
  assert stream(source, seed=1).plan(0).records.tolist() != first.records.tolist()
  boundary = len(first)
  assert made.locate(boundary - 1) == (0, boundary - 1)
  assert made.locate(boundary) == (1, 0)


def test_strategies_have_their_probabilities(source, assets):
  made = stream(source, data__row_length=256, objective__ppm=0.7)
  clean, kept, cuts = [], [], []
  for epoch in range(12):
    plan, cut = made._epoch(epoch)
    eligible = source.shapes.last_codes > 10
    assert not cut[~eligible].any()
    cuts += (cut[eligible] > 0).tolist()
    for number in plan.records:
      document = source[int(number)].document
      draws = made._draw(epoch, int(number), document, 0.5)
      clean.append(draws.banom)
      if document.responses.sum() == 2:
        kept.append(draws.keep)  # 0 or 1 with equal chance, where PPM applies
  assert np.mean(clean) == pytest.approx(0.3, abs=0.06)
  assert np.mean(cuts) == pytest.approx(0.5, abs=0.1)
  assert np.mean(kept) == pytest.approx(0.35, abs=0.12) and set(kept) == {0, 1}


def test_conditions_are_dropped_with_their_probability_and_nothing_else_is_drawn(source):
  plain, made = (stream(source, objective__condition_dropout=p) for p in (0.0, 0.4))
  dropped = []
  for epoch in range(12):
    for number in plain.plan(epoch).records:
      document = source[int(number)].document
      args = (epoch, int(number), document, 0.5)
      was, now = plain._draw(*args), made._draw(*args)
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
  for index in range(len(plain.plan(0))):
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


def test_plans_are_cached_and_a_damaged_cache_is_made_again(source):
  known = set((source.directory / 'cache').glob('plan-*.npz'))
  first = stream(source, seed=5).plan(0)
  (path,) = set((source.directory / 'cache').glob('plan-*.npz')) - known
  planted = first.records[::-1]
  np.savez(path, records=planted, offsets=first.offsets)
  np.testing.assert_array_equal(stream(source, seed=5).plan(0).records, planted)
  path.write_bytes(b'damaged')
  np.testing.assert_array_equal(stream(source, seed=5).plan(0).records, first.records)


def test_rows_that_fit_nothing_are_refused(source):
  with pytest.raises(records.DataError, match='none of the 60 records.*row_length=4'):
    stream(source, data__row_length=4)


def test_batch_sizes_that_cannot_be_divided_are_refused(source):
  with pytest.raises(ValueError, match='batch_size=8 is no multiple of 3'):
    next(loader.batches(stream(source), 8, 5, processes=3))


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
  plan = by_document.plan(0)
  assert by_document[0].normalizer == plan.offsets[1]
  by_token = stream(source, objective__sst=0.0, objective__normalization='token')
  row = by_token[0]
  assert row.normalizer >= (row.weights > 0).sum()


def test_settings_that_change_rows_change_the_plan_file(source):
  config = make_config()
  changed = dataclasses.replace(config.objective, sst=0.9)
  a = rows.Rows(source, config.data, config.mask, config.objective, 0).plan(0)
  b = rows.Rows(source, config.data, config.mask, changed, 0).plan(0)
  assert a.records.tolist() != b.records.tolist() or a.offsets.tolist() != b.offsets.tolist()
