import math

import jax
import numpy as np
import pytest
from conftest import make_config
from flax import linen as nn

from data_pipelines import records
from ttt_jax import chat
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


def test_exact_counts_mask_so_many_of_one_span_and_drop_what_follows(assets, documents):
  objective = make_config(objective__normalization='token').objective
  document = next(d for d in documents if d.responses.sum() >= 2)
  span = int(np.flatnonzero(document.responses)[0])
  start, end = document.spans[span]
  rng = np.random.default_rng(0)
  for count in range(1, end - start + 1):
    cut, out = likelihood.exact_count(document, span, count, rng, objective, assets.vocabulary)
    masked = out.inputs == assets.vocabulary.mask
    assert len(cut.tokens) == end and masked.sum() == count and not masked[:start].any()
    np.testing.assert_allclose(out.weights[masked], (end - start) / count, rtol=1e-6)
    assert (out.weights[~masked] == 0).all()


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
