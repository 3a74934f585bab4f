import dataclasses

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.stream import rows
from ttt_jax import batch as batch_lib
from ttt_jax import config as config_lib
from ttt_jax import mask
from ttt_jax.diffusion import corruption, schedule, two_stream
from ttt_jax.model import transformer

BLOCK = 5


def two(audio='block', **changes):
  changes = {'mask__audio': audio, 'mask__block_size': BLOCK} | changes
  changes |= {'objective__layout': 'two_stream', 'objective__banom': 0.0, 'objective__ppm': 0.0}
  return make_config(**changes)


def laid(document, config, vocabulary, time=0.5, seed=0, dropped=False):
  """A document in two streams, and its copies before they were masked."""
  block = config.mask.group_size
  copies = two_stream.copy(document, block, config.objective.copies, vocabulary)
  uniforms = np.random.default_rng(seed).random(len(copies.tokens))
  draws = corruption.Draws(time, uniforms, False, 0, dropped)
  how = config.mask, config.objective, vocabulary
  return two_stream.corrupt(document, draws, *how), copies


def cut(document, seed):
  """The document, cut within its last response span if there is one that can be."""
  spans = document.spans[document.responses]
  if not len(spans) or np.diff(spans[-1])[0] < 3:
    return document
  start, end = spans[-1].tolist()
  return corruption.truncate(document, start + 1 + seed % (end - start - 2))


ANY = given(
  number=st.integers(0, 59),
  audio=st.sampled_from(['span', 'block']),
  copies=st.integers(1, 3),
  truncated=st.booleans(),
  seed=st.integers(0, 99),
)


@ANY
def test_everyone_sees_what_the_rule_says(
  assets, documents, number, audio, copies, truncated, seed
):
  config = two(audio, objective__copies=copies)
  document = cut(documents[number], seed) if truncated else documents[number]
  out, copied = laid(document, config, assets.vocabulary, seed=seed)
  size, total = len(document.tokens), len(out.inputs)
  groups = mask.order_groups(size, document.spans, BLOCK if audio == 'block' else None)
  order = np.concatenate([groups, groups[copied.starts][copied.group]])
  streams = (np.arange(total) >= size).astype(int)
  wanted = mask.visible(np.zeros(total, int), order, streams)
  # The rule knows of one copy; several do not see each other.
  which = np.concatenate([np.zeros(size, int), 1 + copied.copy[copied.group]])
  wanted &= (which[None] == 0) | (which[:, None] == which[None])
  keys = np.arange(total)
  seen = (keys >= out.kv_start[..., None]) & (keys < out.kv_end[..., None])
  np.testing.assert_array_equal(seen.sum(1), wanted)


@ANY
def test_copies_hold_the_audio_of_responses_at_its_positions(
  assets, documents, number, audio, copies, truncated, seed
):
  config, v = two(audio, objective__copies=copies), assets.vocabulary
  document = cut(documents[number], seed) if truncated else documents[number]
  out, copied = laid(document, config, v, seed=seed)
  size = len(document.tokens)
  # Straight from the text, span by span.
  wanted = []
  for start, end in document.spans[document.responses].tolist():
    one = [(i, int(document.tokens[i])) for i in range(start, end)]
    if audio == 'block' and v.is_end(document.tokens[end - 1]):
      while len(one) % BLOCK:
        one.append((start + len(one), int(document.tokens[end - 1])))
    wanted += one * copies
  found = np.where(out.weights[size:] > 0, out.targets[size:], out.inputs[size:])
  assert list(zip(out.positions[size:].tolist(), found.tolist())) == wanted
  masked = out.inputs[size:] == v.mask
  np.testing.assert_array_equal(masked, out.weights[size:] > 0)
  np.testing.assert_array_equal(masked, out.noise[size:] > 0)
  np.testing.assert_array_equal(out.inputs[:size], document.tokens)
  _, twins = np.unique(copied.starts, return_inverse=True)
  np.testing.assert_array_equal(copied.index, twins)  # no two groups share a time
  block = config.mask.group_size
  assert two_stream.copied_lengths(document, block, v)[0] * copies == len(wanted)


@given(
  number=st.integers(0, 59),
  copies=st.integers(1, 3),
  normalization=st.sampled_from(['document', 'token']),
  time=st.floats(0, 1, exclude_max=True),
)
def test_the_loss_is_text_on_clean_context_and_the_mean_bound_of_the_copies(
  assets, documents, number, copies, normalization, time
):
  config = two(objective__copies=copies, objective__normalization=normalization)
  document, objective = documents[number], config.objective
  out, copied = laid(document, config, assets.vocabulary, time=time)
  size = len(document.tokens)
  table = np.random.default_rng(number).random((len(out.inputs), assets.vocabulary.size))
  ours = np.sum(out.weights * table[np.arange(len(out.inputs)), out.targets])
  text = [
    table[i, document.tokens[i + 1]]
    for i in range(size - 1)
    if document.targets[i + 1] and document.tokens[i + 1] < assets.vocabulary.audio_start
  ]
  audio = 0.0
  for at, (group, token) in enumerate(zip(copied.group, copied.tokens)):
    t = (time + copied.index[group] * (2**0.5 - 1) + copied.copy[group] / copies) % 1
    if out.inputs[size + at] == assets.vocabulary.mask:
      audio += float(schedule.weight(objective, t)) * table[size + at, token]
  candidates = len(copied.tokens) // copies
  assert out.count == len(text) + candidates
  if normalization == 'document':
    wanted = sum(text) / max(1, len(text)) + audio / copies / max(1, candidates)
  else:
    wanted = sum(text) + audio / copies
  assert ours == pytest.approx(wanted, rel=1e-5)


def test_copies_of_a_group_have_times_that_are_evenly_apart_and_groups_far_ones():
  copies = two_stream.Copies(
    *(np.zeros(0, np.int32),) * 5,
    index=np.repeat(np.arange(50), 4),
    copy=np.tile(np.arange(4), 50),
  )
  t = np.sort(two_stream.times(0.3, copies, 4).reshape(50, 4), 1)
  np.testing.assert_allclose(np.diff(t, axis=1), 0.25, atol=1e-12)
  firsts = np.sort(two_stream.times(0.3, copies, 4)[::4])
  assert np.diff(firsts, append=firsts[0] + 1).max() < 3 / 50  # independent ones: about 5 / 50


@pytest.fixture(scope='module')
def network(assets):
  model = transformer.Transformer(make_config().model, assets.vocabulary.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  run = jax.jit(model.apply)

  def logits(document, inputs, config: config_lib.Config, vocabulary):
    """[L, V] of one plain document, in one stream."""
    groups = mask.document_groups(document.tokens, document.spans, config.mask, vocabulary)
    length = 160
    pad = [(0, length - len(inputs))]
    ends = np.pad(mask.group_ends(groups), pad)
    view = np.pad(inputs, pad), np.arange(length), np.zeros(length, int), ends
    return run({'params': params}, *(x[None] for x in view))[0][: len(inputs)]

  def of_row(row: batch_lib.Batch):
    view = row.inputs, row.positions, row.kv_start, row.kv_end
    return run({'params': params}, *(x[None] for x in view))[0]

  return logits, of_row


@pytest.mark.parametrize('audio', ['span', 'block'])
def test_training_computes_what_decoding_computes(assets, documents, network, audio):
  """A group sees the clean document before it, however the others are masked."""
  logits, of_row = network
  v, config = assets.vocabulary, two(audio)
  document = next(d for d in documents if d.responses.sum() >= 2)
  out, copied = laid(document, config, v)
  row = rows.pack([out], 160, config.objective)
  found, size = of_row(row), len(document.tokens)
  clean = logits(document, document.tokens, config, v)
  np.testing.assert_allclose(found[:size], clean, atol=2e-5)
  begin = size
  for start, count in zip(copied.starts.tolist(), copied.sizes.tolist()):
    noisy = out.inputs[begin : begin + count]
    tokens = np.concatenate([document.tokens[:start], noisy])
    # What a decoder has: all before the group, and a group of masks and revealed tokens.
    growing = document._replace(tokens=tokens, spans=v.spans(tokens))
    decoded = logits(growing, tokens, config, v)
    np.testing.assert_allclose(found[begin : begin + count], decoded[start:], atol=2e-5)
    begin += count


def test_the_condition_can_be_dropped(assets, documents):
  v, config = assets.vocabulary, two()
  document = next(d for d in documents if d.responses.any())
  kept, copied = laid(document, config, v)
  out, _ = laid(document, config, v, dropped=True)
  size = len(document.tokens)
  hidden = corruption.without_condition(document, v)
  np.testing.assert_array_equal(out.inputs[:size], hidden.tokens)
  assert not out.weights[:size].any() and kept.weights[:size].any()
  np.testing.assert_array_equal(out.inputs[size:], kept.inputs[size:])
  assert out.count == len(copied.tokens)


def test_who_sees_what_does_not_depend_on_whether_the_condition_is_dropped(assets, documents):
  config = two(mask__causal_prompt=True)
  document = next(d for d in documents if d.responses.any() and not d.responses.all())
  kept, out = (laid(document, config, assets.vocabulary, dropped=x)[0] for x in (False, True))
  assert (kept.kv_start == out.kv_start).all() and (kept.kv_end == out.kv_end).all()


@pytest.mark.parametrize('audio,copies', [('span', 1), ('block', 2)])
def test_rows_are_planned_and_packed(source, documents, audio, copies):
  config = two(audio, objective__copies=copies, data__row_length=256)
  made = rows.Rows([source], config.data, config.mask, config.objective, 0)
  cuts = first = 0
  for number in range(6):
    window = made.plan.window(number)
    lengths = np.zeros(len(window), int)
    for row in range(len(window)):
      laid_ones = [made.lay(*pair) for pair in made.read(first + row)]
      lengths[row] = sum(len(one.inputs) for one in laid_ones)
    assert lengths.max() <= 256
    first += len(window)
    assert made.plan.locate(first) == (number + 1, 0)  # what was kept on disk is of this layout
    cuts += (window.cuts > 0).sum()
  assert cuts > 20
  # The plan knows the length of everything that it packs, cut or not.
  deck = made.plan.decks[0]
  dealt = deck.deal(0, 3 * len(deck))
  for record, length, size in zip(dealt.records, dealt.cuts, dealt.lengths):
    document = source.documents[int(record)]
    document = corruption.truncate(document, length) if length else document
    out, _ = laid(document, config, source.assets.vocabulary)
    assert len(out.inputs) == size
  whole = [np.asarray(x)[None] for x in made[3]]
  batch_lib.check(batch_lib.Batch(*whole), 10**6)
  assert whole[2].shape == (1, 256, 2)


def test_what_does_not_fit_two_streams_is_refused():
  with pytest.raises(config_lib.ConfigError, match=r'objective\.ppm.*two_stream'):
    make_config(objective__layout='two_stream', objective__banom=0.0)
  with pytest.raises(config_lib.ConfigError, match=r'objective\.copies'):
    make_config(objective__copies=2)
  assert dataclasses.asdict(two().objective)['layout'] == 'two_stream'
