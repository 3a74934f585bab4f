import numpy as np
import pytest
from conftest import CODES, make_config
from hypothesis import given
from hypothesis import strategies as st

from ttt_jax import chat
from ttt_jax.diffusion import corruption


def draws(document, time=0.5, banom=False, keep=0, seed=0, dropped=False):
  uniforms = np.random.default_rng(seed).random(len(document.tokens))
  return corruption.Draws(time, uniforms, banom, keep, dropped)


def paper_loss(document, corrupted, nll, p, vocabulary, banom, keep):
  """The paper's loss of one document, straight from its text, token by token.

  `nll(i, token)` is the loss of predicting `token` at position i.
  """
  tokens, targets = document.tokens.tolist(), document.targets.tolist()
  spans = [tuple(s) for s in document.spans[document.responses].tolist()][keep:]
  text = []
  for i in range(len(tokens) - 1):
    masked_here = corrupted.inputs[i] != tokens[i]
    if targets[i + 1] and tokens[i + 1] < vocabulary.audio_start and not masked_here:
      text.append(nll(i, tokens[i + 1]))
  total = sum(text) / len(text) if text else 0.0
  if banom:
    return total
  maskable = [i for start, end in spans for i in range(start, end)]
  masked = [i for i in maskable if corrupted.inputs[i] == vocabulary.mask]
  return total + sum(nll(i, tokens[i]) / p for i in masked) / max(1, len(maskable))


@given(
  number=st.integers(0, 59),
  time=st.floats(0, 1),
  banom=st.booleans(),
  keep=st.integers(0, 2),
  seed=st.integers(0, 99),
)
def test_weights_are_the_papers_loss(assets, documents, number, time, banom, keep, seed):
  document, vocabulary = documents[number], assets.vocabulary
  objective = make_config().objective
  keep = min(keep, max(0, int(document.responses.sum()) - 1))
  drawn = draws(document, time, banom, keep, seed)
  corrupted = corruption.corrupt(document, drawn, objective, vocabulary)
  table = np.random.default_rng(seed).random((len(document.tokens), vocabulary.size))
  here = np.arange(len(document.tokens))
  ours = np.sum(corrupted.weights * table[here, corrupted.targets])
  p = (1 - objective.epsilon) * time + objective.epsilon

  def nll(i, token):
    return table[i, token]

  wanted = paper_loss(document, corrupted, nll, p, vocabulary, banom, keep)
  assert ours == pytest.approx(wanted, rel=1e-5)


@given(number=st.integers(0, 59), time=st.floats(0, 1), seed=st.integers(0, 99))
def test_only_response_audio_is_masked(assets, documents, number, time, seed):
  document, v = documents[number], assets.vocabulary
  out = corruption.corrupt(
    document, draws(document, time, seed=seed), make_config().objective, v
  )
  masked = out.inputs == v.mask
  allowed = np.zeros(len(masked), bool)
  for start, end in document.spans[document.responses]:
    allowed[start:end] = True
  assert not (masked & ~allowed).any()
  np.testing.assert_array_equal(out.inputs[~masked], document.tokens[~masked])
  np.testing.assert_array_equal(out.targets[masked], document.tokens[masked])
  audio = (out.weights > 0) & v.is_audio(out.targets)
  np.testing.assert_array_equal(audio, masked)
  np.testing.assert_array_equal(out.noise > 0, masked)


def test_a_masked_end_predicts_itself_and_a_clean_one_the_text_behind_it(assets):
  document = assets.template.document(
    [chat.Turn('user', ['one']), chat.Turn('assistant', ['two', np.arange(4)])]
  )
  v, objective = assets.vocabulary, make_config().objective
  ((start, end),) = document.spans
  for p, wanted in ((1.0, v.end_last), (0.0, v.turn_end)):
    uniforms = np.full(len(document.tokens), 0.5)
    uniforms[start : end - 1] = 2  # never masked
    out = corruption.corrupt(
      document, corruption.Draws(p, uniforms, False, 0, False), objective, v
    )
    assert out.targets[end - 1] == wanted and out.weights[end - 1] > 0
    # The last target is the line break behind the end of the turn.
    assert out.targets[end] == assets.tokenizer.encode('\n')[0]


def test_masking_has_probability_p(assets):
  long = assets.template.document([chat.Turn('assistant', [np.zeros(CODES * 300, int)])])
  objective = make_config().objective
  for time in (0.1, 0.5, 0.9):
    out = corruption.corrupt(long, draws(long, time), objective, assets.vocabulary)
    masked = (out.inputs == assets.vocabulary.mask).mean()
    assert masked == pytest.approx(time, abs=0.02)


def test_banom_leaves_audio_clean_and_trains_text(assets, documents):
  for document in documents[:20]:
    out = corruption.corrupt(
      document, draws(document, banom=True), make_config().objective, assets.vocabulary
    )
    np.testing.assert_array_equal(out.inputs, document.tokens)
    assert not assets.vocabulary.is_audio(out.targets[out.weights > 0]).any()
    assert (out.weights > 0).any()


def test_ppm_keeps_the_first_spans_clean(assets, documents):
  document = next(d for d in documents if d.responses.sum() >= 3)
  out = corruption.corrupt(
    document, draws(document, time=1.0, keep=2), make_config().objective, assets.vocabulary
  )
  masked = out.inputs == assets.vocabulary.mask
  per_span = [masked[a:b].all() for a, b in document.spans[document.responses]]
  assert per_span == [False, False] + [True] * (len(per_span) - 2)
  assert [masked[a:b].any() for a, b in document.spans[document.responses]] == per_span


@given(
  number=st.integers(0, 59),
  time=st.floats(0, 1),
  keep=st.integers(0, 2),
  seed=st.integers(0, 99),
)
def test_a_dropped_condition_leaves_response_audio_alone(
  assets, documents, number, time, keep, seed
):
  document, v = documents[number], assets.vocabulary
  objective = make_config().objective
  keep = min(keep, max(0, int(document.responses.sum()) - 1))
  whole, out = (
    corruption.corrupt(
      document, draws(document, time, False, keep, seed, dropped), objective, v
    )
    for dropped in (False, True)
  )
  # By hand: tokens of an answer's audio are targets of audio class; a begin stands before one.
  audio = [t and i >= v.audio_start for t, i in zip(document.targets, document.tokens)]
  for i, token in enumerate(document.tokens):
    begins = token in (v.begin_audio, v.begin_last) and audio[i + 1]
    assert out.inputs[i] == (whole.inputs[i] if audio[i] or begins else v.mask)
    kept = audio[i] and whole.inputs[i] == v.mask
    for field in ('targets', 'weights', 'noise'):
      assert getattr(out, field)[i] == (getattr(whole, field)[i] if kept else 0)
  assert out.count == corruption.maskable(document, keep).sum()


@given(
  start=st.integers(0, 1000),
  codes=st.integers(0, 500),
  apply=st.floats(0, 1, exclude_max=True),
  where=st.floats(0, 1, exclude_max=True),
)
def test_truncation_keeps_30_to_90_percent_of_the_last_span(start, codes, apply, where):
  objective = make_config().objective
  (length,) = corruption.truncated_length(
    np.array([start]), np.array([codes]), np.array([[apply, where]]), objective
  )
  if apply >= objective.sst or codes <= objective.sst_above:
    assert length == 0
  else:
    assert np.floor(0.3 * codes) <= length - start <= 0.9 * codes
    assert length > start


def test_truncation_drops_the_end_and_what_follows(assets, documents):
  document = next(d for d in documents if d.responses.any() and d.spans[-1][1] > 12)
  start, end = document.spans[document.responses][-1]
  cut = corruption.truncate(document, int(end) - 1)
  assert len(cut.tokens) == end - 1 and cut.spans[-1].tolist() == [start, end - 1]
  assert not assets.vocabulary.is_end(cut.tokens[start:]).any()


def test_token_normalization_leaves_weights_whole(assets, documents):
  objective = make_config(objective__normalization='token').objective
  document = next(d for d in documents if d.responses.any())
  drawn = draws(document, time=0.5)
  out = corruption.corrupt(document, drawn, objective, assets.vocabulary)
  audio = assets.vocabulary.is_audio(out.targets) & (out.weights > 0)
  text = ~audio & (out.weights > 0)
  assert set(out.weights[text]) == {1.0}
  p = (1 - objective.epsilon) * 0.5 + objective.epsilon
  np.testing.assert_allclose(out.weights[audio], 1 / p, rtol=1e-6)
  assert out.count == text.sum() + corruption.maskable(document).sum()
