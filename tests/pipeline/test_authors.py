import numpy as np
import pytest

from data_pipelines.converting import authors
from ttt_jax import chat

AUDIO = '<|begin_of_audio|><|audio_3|><|audio_7|><|end_of_audio|>'
SPOKEN = 'one<|begin_of_audio|><|audio_1|><|end_of_audio_new|> two'
SPOKEN += '<|begin_of_quad|><|audio_2|><|audio_2|><|end_of_audio_span_last|>'
CONVERSATION = {
  'messages': [
    {'role': 'system', 'content': 'speak', 'text_content': None},
    {'role': 'user', 'content': AUDIO, 'text_content': '{{text}}'},
    {'role': 'assistant', 'content': SPOKEN, 'text_content': None},
  ]
}


def said(*roles):
  return {'messages': [{'role': role, 'content': 'x'} for role in roles]}


def test_a_conversation_is_what_the_template_makes_of_it(assets):
  document = authors.compose(CONVERSATION, assets.template)
  wanted = assets.template.document(
    [
      chat.Turn('system', ['speak']),
      chat.Turn('user', [np.array([3, 7])]),
      chat.Turn('assistant', ['one', np.array([1]), ' two', np.array([2, 2])]),
    ]
  )
  for got, also in zip(document, wanted):
    np.testing.assert_array_equal(got, also)


def test_other_forms_say_the_same(assets):
  wanted = authors.compose({'messages': CONVERSATION['messages'][1:]}, assets.template)
  forms = [
    {'conversations': [{'from': 'human', 'value': AUDIO}, {'from': 'gpt', 'value': SPOKEN}]},
    {'prompt': AUDIO, 'response': SPOKEN},
  ]
  for form in forms:
    document = authors.compose(form, assets.template)
    np.testing.assert_array_equal(document.tokens, wanted.tokens)
    np.testing.assert_array_equal(document.targets, wanted.targets)


def test_all_of_an_interleaved_text_is_a_target(assets):
  document = authors.compose({'text': SPOKEN}, assets.template)
  assert document.targets.all() and len(document.spans) == 2
  v = assets.vocabulary
  ids = document.tokens.tolist()
  assert v.begin_last in ids and ids[-1] == v.end_last and v.turn_start not in ids


@pytest.mark.parametrize(
  'content,said',
  [
    ({}, 'must have one of "messages"'),
    ({'text': 'a', 'messages': []}, "but has ..messages', 'text'"),
    ({'response': 'a'}, 'must have one of'),
    ({'prompt': 'a', 'response': None}, "needs the texts 'role' and 'content'"),
    ({'text': 3}, 'a text is needed, not 3'),
    ({'conversations': [{'from': 'bot', 'value': 'x'}]}, "unknown role 'bot'"),
    ({'prompt': AUDIO, 'response': AUDIO}, 'audio of the assistant ends by another token'),
    ({'prompt': SPOKEN, 'response': 'x'}, 'audio of the user ends by another token'),
    ({'text': 'one ' + AUDIO}, 'audio of the text ends by another token'),
    ({'messages': []}, 'has no turns'),
    ({'messages': [{'role': 'user'}]}, "needs the texts 'role' and 'content'"),
    ({'messages': [{'role': 'tool', 'content': 'x'}]}, "unknown role 'tool'"),
    ({'text': 'a<|audio_999|>'}, 'audio_999.> is not a token that may stand'),
    ({'text': 'a<|im_end|>b'}, 'im_end.> is not a token that may stand'),
    ({'text': 'a<|mask_token|>b'}, 'mask_token.> is not a token'),
    ({'text': 'a<|audio_1|><|end_of_audio|>'}, 'without a begin token'),
    ({'text': 'a<|begin_of_audio|><|audio_1|>b'}, 'must end by one end token'),
    ({'text': '<|begin_of_audio|><|audio_1|><|end_of_audio|><|audio_2|>'}, 'must end by one'),
    ({'text': 'a<|begin_of_audio|>b'}, 'followed by no audio'),
    ({'text': 'a<|begin_of_audio|><|end_of_audio|>'}, 'has no codes'),
    (
      {'text': 'a<|begin_of_audio|><|audio_1|><|end_of_audio_span_last|>'},
      'go with each other',
    ),
    ({'text': 'a<|begin_of_quad|><|audio_1|><|end_of_audio_new|>'}, 'go with each other'),
    ({'text': 'a<|begin_of_quad|><|audio_1|><|end_of_audio|>'}, 'go with each other'),
    ({'text': 'a<|audio_007|>'}, 'audio_007.> is not a token that may stand'),
    ({'text': 'a<|audio_x|>'}, 'audio_x.> is no whole or no known token of audio'),
    ({'text': 'a<|audio_12'}, 'audio_12 is no whole or no known token'),
    ({'text': 'a<|audio_\u0663|>'}, 'is no whole or no known token'),
    ({'text': 'a<|begin_of_sound|>b'}, 'begin_of_sound.> is no whole or no known'),
    ({'text': 'a<|end_of_audio'}, 'end_of_audio is no whole or no known'),
    ({'text': ' \n'}, 'the text is empty'),
    ({'prompt': '', 'response': 'x'}, 'the turn of the user is empty'),
    ({'prompt': 'x', 'response': ' '}, 'the turn of the assistant is empty'),
    ({'messages': [{'role': 'user', 'content': 'x'}]}, 'out of order .user.: a system may'),
    (said('assistant', 'user'), 'out of order .assistant, user.'),
    (said('user', 'user', 'assistant'), 'out of order'),
    (said('user', 'system', 'assistant'), 'out of order'),
    (said('system', 'system', 'user', 'assistant'), 'out of order'),
    (said('system', 'assistant'), 'out of order'),
    (said('user', 'assistant', 'user'), 'out of order'),
    (said('system'), 'out of order'),
    ({'messages': {'role': 'user', 'content': 'x'}}, 'has no turns'),
    ({'messages': [['user', 'x']]}, "needs the texts 'role' and 'content'"),
    ({'messages': [{'role': 'user', 'content': ['x']}]}, "needs the texts 'role'"),
  ],
)
def test_bad_records_are_refused(assets, content, said):
  with pytest.raises(ValueError, match=said):
    authors.compose(content, assets.template)
