"""Metrics against their libraries, against brute force, and against closed forms."""

import sys

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from transformers.models.whisper import english_normalizer

from ttt_jax.evaluation import normalise, suite, text_metrics

WORDS = st.lists(st.sampled_from('one two three'.split()), min_size=1, max_size=6)  # noqa: SIM905
PAIRS = st.lists(st.tuples(WORDS, WORDS | st.just([])), min_size=1, max_size=4)


def figure_of(metric, pairs) -> float:
  """Of pairs of references and what was said."""
  made = text_metrics.measure(metric)
  return made.figure(sum(made.counts(said, references) for references, said in pairs))


def distance(a, b) -> int:
  """Edits from a to b: the textbook's recursion, row by row."""
  row = list(range(len(b) + 1))
  for i, one in enumerate(a):
    new = [i + 1]
    for j, other in enumerate(b):
      new.append(min(row[j + 1] + 1, new[j] + 1, row[j] + (one != other)))
    row = new
  return row[-1]


@given(PAIRS)
def test_error_rates_are_edit_distances_and_what_jiwer_says(pairs):
  texts = [(' '.join(reference), ' '.join(said)) for reference, said in pairs]
  for name, units in (('wer', str.split), ('cer', list)):
    found = figure_of(suite.Metric(name), [([a], b) for a, b in texts])
    edits = sum(distance(units(a), units(b)) for a, b in texts)
    assert found == pytest.approx(edits / sum(len(units(a)) for a, _ in texts))
    assert found == pytest.approx(getattr(jiwer, name)(*map(list, zip(*texts))))


def test_of_several_references_the_nearest_counts():
  pairs = [(['one two', 'one two three four'], 'one two three five')]
  assert figure_of(suite.Metric('wer'), pairs) == 1 / 4


@pytest.mark.parametrize(
  'match,said,reference,right',
  [
    ('exact', 'seven', 'seven', True),
    ('exact', 'it is seven', 'seven', False),
    ('end', 'three plus four is seven', 'seven', True),
    ('end', 'seven is right', 'seven', False),
    ('end', 'seventy seven', 'seventy seven', True),
    ('end', 'seven', 'seventy seven', False),
    ('end', '', 'seven', False),
    ('contains', 'it is twenty one now', 'twenty one', True),
    ('contains', 'it is twenty and one', 'twenty one', False),
    ('contains', 'seventeen', 'seven', False),
    ('option', 'she sounds happy', 'happy', True),
    ('option', 'she sounds very happy', 'happy', False),
    ('option', 'she sounds very happy', 'very happy', True),
    ('option', 'happy enough', 'happy', False),
    ('option', 'he is happy enough', 'happy enough', True),
    ('option', 'happy or sad', 'happy', False),
    ('option', 'happy happy', 'happy', True),
    ('option', 'neither', 'happy', False),
  ],
)
def test_what_is_right(match, said, reference, right):
  options = ('sad', 'happy', 'very happy', 'happy enough') if match == 'option' else ()
  metric = suite.Metric('accuracy', match=match, options=options)
  assert figure_of(metric, [([reference], said)]) == right


def test_options_are_compared_behind_the_normaliser():
  metric = suite.Metric(
    'accuracy', match='option', options=('Happy!', 'Sad'), normaliser='basic'
  )
  assert figure_of(metric, [(['happy'], 'HAPPY.')]) == 1
  with pytest.raises(text_metrics.MetricError, match="'angry' is none of the options"):
    figure_of(metric, [(['angry'], 'angry')])


CAPTIONS = [
  (['a dog barks in the rain', 'a dog is barking'], 'the dog barks in the rain'),
  (['birds sing'], ''),
  (['rain falls on a roof while thunder rolls'], 'rain falls on the roof and thunder rolls'),
  (['somebody types on a keyboard', 'typing'], 'typing on a computer keyboard'),
]


def test_captions_are_judged_as_the_libraries_do():
  said = [one for _, one in CAPTIONS]
  most = max(len(references) for references, _ in CAPTIONS)
  streams = [[(r + [None] * most)[i] for r, _ in CAPTIONS] for i in range(most)]
  whole = sacrebleu.metrics.BLEU().corpus_score(said, streams).score
  assert figure_of(suite.Metric('bleu'), CAPTIONS) == pytest.approx(whole) and whole > 5
  each = [sacrebleu.sentence_chrf(text, references).score for references, text in CAPTIONS]
  assert figure_of(suite.Metric('chrf'), CAPTIONS) == pytest.approx(np.mean(each))
  scorer = rouge_scorer.RougeScorer(['rougeL'])
  best = [scorer.score_multi(r, text)['rougeL'].fmeasure for r, text in CAPTIONS]
  assert figure_of(suite.Metric('rouge_l'), CAPTIONS) == pytest.approx(100 * np.mean(best))


@pytest.mark.parametrize('name', ['bleu', 'chrf', 'rouge_l'])
def test_a_caption_that_is_right_has_all_points(name):
  pairs = [(references, references[0]) for references, _ in CAPTIONS]
  assert figure_of(suite.Metric(name), pairs) == pytest.approx(100)


SAID = st.text(st.sampled_from("abcABC ,.!?'-[]()éß0123456789$%£"), max_size=40)


@given(SAID)
def test_normalisers_are_those_of_whisper(text):
  basic = english_normalizer.BasicTextNormalizer()
  assert normalise.normaliser('basic')(text) == basic(text).strip()
  assert normalise.normaliser('none')(text) == text.strip()


@pytest.mark.parametrize(
  'text,expected',
  [
    ("Um, it's twenty-one colours, Mr. Smith (laughs)!", 'it is 21 colors mister smith'),
    ("I can't, [noise] won't", 'i can not will not'),
    ('', ''),
  ],
)
def test_english_is_brought_into_one_form(text, expected):
  found = normalise.normaliser('english')(text)
  assert found == expected
  assert found == english_normalizer.EnglishTextNormalizer({'colours': 'colors'})(text).strip()


def test_normalised_texts_are_what_is_compared():
  pairs = [(['Hello, World!'], 'hello world')]
  assert figure_of(suite.Metric('wer'), pairs) == 1
  assert figure_of(suite.Metric('wer', normaliser='basic'), pairs) == 0
  assert figure_of(suite.Metric('accuracy', normaliser='basic'), pairs) == 1


@pytest.mark.parametrize('name', suite.OF_TEXT)
def test_a_reference_without_words_is_refused(name):
  with pytest.raises(text_metrics.MetricError, match='the reference has no'):
    figure_of(suite.Metric(name, normaliser='basic'), [(['[noise]', ''], 'one')])


@pytest.mark.parametrize(
  'module,metric',
  [
    ('jiwer', suite.Metric('wer')),
    ('sacrebleu.metrics', suite.Metric('bleu')),
    ('rouge_score.rouge_scorer', suite.Metric('rouge_l')),
  ],
)
def test_missing_libraries_say_what_to_install(monkeypatch, module, metric):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(text_metrics.MetricError, match=r"ttt_jax\[(evaluate|speech)\]'"):
    text_metrics.measure(metric)


def test_nothing_counted_is_no_number():
  for name in ('wer', 'bleu'):
    made = text_metrics.measure(suite.Metric(name))
    assert np.isnan(made.figure(np.zeros(10)))
