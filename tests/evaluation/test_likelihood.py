import itertools
import math

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from data_pipelines import records
from ttt_jax import chat, mask
from ttt_jax.diffusion import two_stream
from ttt_jax.evaluation import judge, likelihood
from ttt_jax.model import transformer


@pytest.mark.parametrize('restrict', [False, True])
def test_a_model_that_knows_nothing_needs_the_log_of_the_ids(assets, documents, restrict):
  config = make_config(objective__restrict_classes=restrict, objective__z_loss=0.5)
  v = assets.vocabulary
  text, audio = v.size, v.size
  if restrict:
    text, audio = v.audio_start, v.size - v.audio_start - 1  # the mask is never predicted
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(0), ids, ids, ids, ids + 1)['params'])
  params = jax.tree.map(np.zeros_like, params)
  out = likelihood.measure(model, params, documents[:10], v, config.mask, config.objective)
  assert out['text_nats'] == pytest.approx(math.log(text), rel=1e-5)
  assert out['audio_bound'] == pytest.approx(math.log(audio), rel=1e-5)
  spans = [d.spans[d.responses] for d in documents[:10]]
  assert out['audio_tokens'] == sum(int(np.diff(s).sum()) for s in spans)


@pytest.mark.parametrize('block', [None, 4])
def test_counts_are_exact_and_spread_over_each_group(assets, documents, block):
  v, samples = assets.vocabulary, 3
  document = next(d for d in documents if d.responses.sum() >= 2)
  copies = two_stream.copy(document, block, samples, v)
  masked, level = likelihood.exact_counts(copies, samples, np.random.default_rng(0))
  for group, size in enumerate(copies.sizes):
    here = copies.group == group
    count = masked[here].sum()
    np.testing.assert_allclose(level[here], count / size)
    # One of the first, the second, the last third of 1..n, rounded.
    part = (count - 1) * samples / size
    assert part < copies.copy[group] + 1 and count * samples / size > copies.copy[group]


@pytest.mark.parametrize('audio', ['span', 'block'])
def test_the_bound_is_the_mean_over_all_ways_to_mask(assets, documents, audio):
  """Brute force: every subset of every small group, each in a row of its own."""
  v, config = assets.vocabulary, make_config(mask__audio=audio, mask__block_size=3)
  model = transformer.Transformer(config.model, v.size)
  ids = np.zeros((1, 2), np.int32)
  params = nn.unbox(model.init(jax.random.key(1), ids, ids, ids, ids + 1)['params'])
  document = next(d for d in documents if d.responses.any() and short(d))
  run = jax.jit(lambda *view: jax.nn.log_softmax(model.apply({'params': params}, *view)))
  wanted = 0.0
  for start, end in document.spans[document.responses].tolist():
    for begin in range(start, end, 3 if audio == 'block' else end - start):
      size = min(end - begin, 3 if audio == 'block' else end - start)
      for count in range(1, size + 1):
        ways = list(itertools.combinations(range(size), count))
        for way in ways:
          tokens = document.tokens[: begin + size].copy()
          tokens[[begin + i for i in way]] = v.mask
          groups = mask.document_groups(tokens, v.spans(tokens), config.mask, v)
          room = 96 - len(tokens)
          ends = np.pad(mask.group_ends(groups), (0, room))
          view = np.pad(tokens, (0, room)), np.arange(96), np.zeros(96, int), ends
          found = run(*(x[None] for x in view))[0]
          nats = -sum(float(found[begin + i, document.tokens[begin + i]]) for i in way)
          wanted += nats * size / count / len(ways) / size
  audio_tokens = int(np.diff(document.spans[document.responses]).sum())
  out = likelihood.measure(model, params, [document] * 40, v, config.mask, config.objective)
  assert out['audio_bound'] == pytest.approx(wanted / audio_tokens, rel=0.02)


def short(document):
  sizes = np.diff(document.spans[document.responses])
  return len(document.tokens) < 90 and 3 < sizes.max() < 8


def test_figures_compare_the_end_of_an_answer_and_leave_out_unknown_floors():
  sound, silence = np.ones(3, np.float32), np.zeros(0, np.float32)
  made = [
    ('answer', 'seven', 'three plus four is seven', 'seven', sound, 'seven'),
    ('answer', 'eight', 'three plus four is seven', 'eight', sound, 'nine'),
    ('speak', 'one two', '', 'one three', silence, ''),
    ('transcribe', 'one two', 'one two', '', silence, ''),
  ]
  heard = [
    judge.Heard('k', task, reference, text, sound, ear, original, floor, sound, ear, True)
    for task, reference, text, ear, original, floor in made
  ]
  figures = judge.figures(heard)
  assert figures['qa_text_accuracy'] == 0.5 and figures['qa_audio_accuracy'] == 1.0
  assert figures['qa_audio_ceiling_original'] == 0.5
  assert figures['tts_wer'] == 0.5 and 'tts_wer_floor_original' not in figures
  assert figures['asr_wer'] == 0.0 and figures['cut_short'] == 0


def test_a_prompt_is_all_before_the_last_answer(assets):
  turns = [
    chat.Turn('user', ['one']),
    chat.Turn('assistant', ['two']),
    chat.Turn('user', ['three']),
  ]
  document = assets.template.document([*turns, chat.Turn('assistant', ['four'])])
  record = records.Record('key', document, {})
  np.testing.assert_array_equal(judge.prompt_of(record), assets.template.prompt(turns))
