"""What cannot be answered is refused in words, and disturbs nobody."""

import copy
import json
import threading
from concurrent import futures

import httpx
import numpy as np
import pytest
from conftest import CODES
from heard import ask, counted, pcm_of, serving, text_of, until, warm, wav_of
from starlette import testclient as starlette_client

from ttt_jax import errors
from ttt_jax.codecs import audio_io, external
from ttt_jax.serving import app, limits, service

pytest_plugins = ['talking']

JSON, WAV, PCM = 'application/json', 'audio/wav', 'audio/pcm'


def wav(samples, rate=16_000, channels=1):
  head = bytearray(audio_io.wav_header(rate, len(samples)))
  head[22] = channels
  return bytes(head) + samples


REFUSED = {
  'empty': ('speak', JSON, b'', 400, 'not JSON'),
  'no JSON': ('speak', JSON, b'{"text": ', 400, 'not JSON'),
  'no UTF-8': ('speak', JSON, b'{"text": "\xff"}', 400, 'not JSON'),
  'deep': ('speak', JSON, b'[' * 100_000, 400, 'not JSON'),
  'a list': ('speak', JSON, b'["one"]', 422, '{"text": "..."}'),
  'a number': ('speak', JSON, b'{"text": 1}', 422, '{"text": "..."}'),
  'more': ('speak', JSON, b'{"text": "one", "seed": 1}', 422, 'settings go in the query'),
  'blank': ('speak', JSON, b'{"text": " \\n"}', 422, 'text is empty'),
  'half a pair': ('speak', JSON, b'{"text": "\\ud800"}', 422, 'surrogate'),
  'long': (
    'speak',
    JSON,
    json.dumps({'text': 'a' * 10**6}).encode(),
    413,
    '1000000 characters',
  ),
  'many tokens': ('speak', JSON, json.dumps({'text': 'x' * 3000}).encode(), 422, 'max_prompt'),
  'form': ('speak', 'text/plain', b'one', 415, 'application/json'),
  'sound': ('speak', WAV, wav_of(), 415, 'application/json'),
  'text': ('transcribe', JSON, b'{"text": "one"}', 415, 'audio/wav or audio/pcm'),
  'no sound': ('transcribe', WAV, b'', 400, 'empty'),
  'not a sound': ('transcribe', WAV, b'MZ' * 500, 400, 'not a WAV'),
  'a head': ('transcribe', WAV, wav_of()[:30], 400, 'no usable WAV'),
  'no samples': ('transcribe', WAV, audio_io.wav_header(16_000, 0), 400, 'no samples'),
  'channels': ('transcribe', WAV, wav(bytes(900), channels=9), 422, '9 channels'),
  'rate': ('transcribe', WAV, wav(bytes(900), rate=2**31 - 1), 422, '2147483647 Hz'),
  'odd': ('transcribe', PCM, b'123', 400, 'odd number'),
  'a minute': ('transcribe', PCM, bytes(2 * 16_000 * 61), 413, 'more than 60 s'),
  'half a minute': ('transcribe', PCM, bytes(2 * 16_000 * 30), 422, 'lasts 30.0 s'),
  'much': ('transcribe', PCM, bytes(2**24 + 2), 413, 'larger than 16777216 bytes'),
}
SETTINGS = [
  ({'text_temperature': 'nan'}, 'text_temperature'),
  ({'audio_temperature': 'inf'}, 'audio_temperature'),
  ({'text_temperature': -1}, 'text_temperature'),
  ({'threshold': 1}, 'threshold'),
  ({'seed': 2**32}, 'seed'),
  ({'seed': -1}, 'seed'),
  ({'steps_per_block': 0}, 'steps_per_block'),
  ({'voice': 10**9}, 'no prompt for voice 1000000000'),
  ({'voice': -1}, 'voice'),
  ({'max_text': 13}, 'max_text is 12 at most'),
  ({'max_audio': 3}, 'block_size is 4'),
  ({'tokens': '1,2'}, 'tokens: Extra inputs'),
]


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_no_question_is_refused(client, name):
  task, kind, content, status, message = REFUSED[name]
  told = client.post(f'/v1/{task}', content=content, headers={'content-type': kind})
  assert (told.status_code, message in told.json()['error']) == (status, True), told.text
  assert len(told.content) < 500


@pytest.mark.parametrize('settings,message', SETTINGS)
def test_impossible_settings_are_refused(client, settings, message):
  told = client.post('/v1/speak', json={'text': 'one'}, params=settings)
  assert (told.status_code, message in told.json()['error']) == (422, True), told.text


def test_a_body_may_say_nothing_of_its_length(client):
  def without_end():
    while True:
      yield bytes(2**20)

  told = client.post('/v1/transcribe', content=without_end(), headers={'content-type': WAV})
  assert told.status_code == 413
  assert client.service._receiving == 0


def test_markup_stays_text(client):
  said = '<script>alert(1)</script>\r\nevent: done\r\ndata: {}'
  events = ask(client, '/v1/ask', said)
  assert [name for name, _ in events].count('done') == 1
  told = client.get('/v1/<script>', headers={'x': '<b>'})
  assert told.status_code == 404 and told.headers['content-type'] == JSON


def test_only_holders_of_a_key_may_ask(talk):
  with serving(talk, keys=('s3cret', 'other')) as client:
    for given in (
      None,
      's3cret',
      'Bearer wrong',
      'Bearer',
      'Basic s3cret',
      'Bearer s3cret\xff',
    ):
      headers = [(b'authorization', given.encode('latin-1'))] if given else []
      told = client.post('/v1/speak', json={'text': 'one'}, headers=headers)
      assert told.status_code == 401 and told.headers['www-authenticate'] == 'Bearer'
      assert client.get('/metrics', headers=headers).status_code == 401
    for key in ('s3cret', 'other'):
      headers = {'authorization': f'Bearer {key}'}
      assert client.get('/v1/model', headers=headers).status_code == 200
    assert client.get('/readyz').status_code == client.get('/').status_code == 200
    # A key says enough: whatever the name by which it is called.
    assert client.get('/readyz', headers={'host': 'talk.example'}).status_code == 200


def test_pages_elsewhere_cannot_ask(client):
  assert client.get('/v1/model', headers={'host': 'evil.example'}).status_code == 421
  assert (
    client.get('/v1/model', headers={'host': f'localhost:{client.port}'}).status_code == 200
  )
  # What a form of another page can send without asking first.
  told = client.post(
    '/v1/speak', content=b'{"text": "one"}', headers={'content-type': 'text/plain'}
  )
  assert told.status_code == 415


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(talk, monkeypatch):
  with serving(talk, queue=2) as client:
    engine = client.service.engine
    engine_turn = engine._turn
    monkeypatch.setattr(engine, '_turn', lambda: None)  # nothing goes on
    batch = talk.config.sampling.batch
    request = talk.decoder.request(talk.prompt('speak', 'one'))
    tickets = [engine.submit(request, lambda events: None) for _ in range(batch + 2)]
    told = client.post('/v1/speak', json={'text': 'one'})
    assert told.status_code == 429 and int(told.headers['retry-after']) >= 1
    monkeypatch.setattr(engine, '_turn', engine_turn)
    for ticket in tickets:
      engine.cancel(ticket)
    assert client.post('/v1/speak', json={'text': 'one'}).status_code == 200


def test_an_answer_has_its_time(talk, monkeypatch):
  with serving(talk, answer_seconds=0.5) as client:
    engine = client.service.engine
    turn = engine._turn
    monkeypatch.setattr(engine, '_turn', lambda: None)
    told = client.post('/v1/ask', json={'text': 'one'})
    assert told.status_code == 504 and told.json() == {'error': 'time is up'}
    assert ask(client, '/v1/ask', 'one')[-1] == ('error', {'error': 'time is up'})
    with pytest.raises(httpx.RemoteProtocolError):
      client.post('/v1/ask', json={'text': 'one'}, headers={'accept': 'audio/wav'})
    assert engine.load == (0, 0) and counted(client)['ttt_answer_seconds_count'] == 0
    monkeypatch.setattr(engine, '_turn', turn)


def test_an_engine_that_has_ended_is_told(talk, monkeypatch):
  def broken(*_, **__):
    raise MemoryError('no more')

  with serving(talk) as client:
    places = client.service.engine._places
    monkeypatch.setattr(places, 'run', broken)
    monkeypatch.setattr(places, 'clear', broken)
    told = client.post('/v1/ask', json={'text': 'one'})
    assert (told.status_code, told.json()) == (500, {'error': 'the engine failed'})
    client.service.engine._thread.join(60)
    told = client.post('/v1/ask', json={'text': 'one'})
    assert told.status_code == 503 and told.json()['error'] == 'the server is not ready'
    assert (client.get('/readyz').status_code, client.get('/healthz').status_code) == (503, 500)
    assert counted(client)['ttt_ready'] == 0 and not client.get('/v1/model').json()['ready']


def test_a_codec_that_fails_is_told(talk, monkeypatch):
  def refuse(self):
    raise RuntimeError('no such level')

  codec = type(talk.assets.codec)
  with serving(talk) as client:
    tried = ({'seed': seed, **warm(1.0)} for seed in range(100))
    settings = next(s for s in tried if 'audio' in dict(ask(client, '/v1/ask', 'one', **s)))
    monkeypatch.setattr(codec, '_decoder', refuse)
    why = {'error': 'the codec could make no sound of the answer'}
    before = counted(client)
    told = client.post('/v1/ask', json={'text': 'one'}, params=settings)
    assert (told.status_code, told.json()) == (500, why)
    name = 'ttt_requests_total{task="answer",status="500"}'
    assert counted(client)[name] == before.get(name, 0) + 1
    assert ask(client, '/v1/ask', 'one', **settings)[-1] == ('error', why)
    with pytest.raises(httpx.RemoteProtocolError):
      headers = {'accept': 'audio/wav'}
      client.post('/v1/ask', json={'text': 'one'}, params=settings, headers=headers)
    assert client.service.engine.load == (0, 0)


def test_what_nobody_foresaw_is_told_counted_and_logged(talk, monkeypatch, caplog):
  def broken(*_, **__):
    raise RuntimeError('a secret')

  with serving(talk) as client:
    asked = {'content': wav_of(), 'headers': {'content-type': WAV}}
    assert client.post('/v1/transcribe', **asked).status_code == 200
    monkeypatch.setattr(type(talk.assets.codec), 'encode', broken)
    for told in (client.post('/v1/transcribe', **asked) for _ in range(2)):
      assert (told.status_code, told.json()) == (500, {'error': 'the server failed'})
    assert counted(client)['ttt_requests_total{task="transcribe",status="500"}'] == 2
    monkeypatch.setattr(app, '_about', broken)
    for told in (client.get('/v1/model') for _ in range(2)):
      assert (told.status_code, told.json()) == (500, {'error': 'the server failed'})
  assert caplog.text.count('RuntimeError: a secret') >= 3


@pytest.fixture
def deaf(talk, monkeypatch):
  """Recordings are heard when this is set."""
  codec, heard = type(talk.assets.codec), threading.Event()
  encode = codec.encode

  def late(*arguments):
    assert heard.wait(120)
    return encode(*arguments)

  monkeypatch.setattr(codec, 'encode', late)
  yield heard
  heard.set()


def test_recordings_wait_in_the_queue_like_all_others(talk, deaf):
  asked = {'content': wav_of(), 'headers': {'content-type': WAV}, 'timeout': 120}
  with serving(talk, queue=2) as client, futures.ThreadPoolExecutor(16) as pool:
    many = talk.config.sampling.batch + 2
    told = [pool.submit(client.post, '/v1/transcribe', **asked) for _ in range(many)]
    until(lambda: client.service.engine.load[0] == many)
    for one in (
      client.post('/v1/transcribe', **asked),
      client.post('/v1/transcribe', **asked | {'content': b'no WAV'}),
      client.post('/v1/ask', json={'text': 'one'}),
    ):
      assert one.status_code == 429 and int(one.headers['retry-after']) >= 1
    deaf.set()
    assert {one.result().status_code for one in told} == {200}
    assert client.service.engine.load == (0, 0)


def test_recordings_do_not_hold_up_the_sound_of_others(client, chatty_seed, deaf):
  asked = {'content': wav_of(), 'headers': {'content-type': WAV}, 'timeout': 120}
  with futures.ThreadPoolExecutor(4) as pool:
    told = [pool.submit(client.post, '/v1/transcribe', **asked) for _ in range(3)]
    until(lambda: client.service.engine.load[0] == 3)
    said = {'json': {'text': 'one'}, 'params': {'seed': chatty_seed[0], **warm(1.0)}}
    assert client.post('/v1/ask', **said, timeout=60).json()['text'] == chatty_seed[1]
    deaf.set()
    assert {one.result().status_code for one in told} == {200}


def test_the_hearing_of_a_recording_has_its_time_too(talk, deaf):
  asked = {'content': wav_of(), 'headers': {'content-type': WAV}, 'timeout': 60}
  with serving(talk, answer_seconds=0.5) as client:
    for _ in range(4):  # the others are not even begun
      told = client.post('/v1/transcribe', **asked)
      assert told.status_code == 504 and told.json() == {'error': 'time is up'}
    assert client.service.engine.load == (0, 0)
    deaf.set()


def test_who_leaves_before_a_recording_is_heard_makes_room(talk, deaf):
  asked = {'content': wav_of(), 'headers': {'content-type': WAV}}
  with serving(talk) as client:
    with pytest.raises(httpx.ReadTimeout):
      client.post('/v1/transcribe', **asked, timeout=3)
    until(lambda: client.service.engine.load == (0, 0))
    deaf.set()


def test_where_sound_is_answered_the_codec_must_stream(talk, client, monkeypatch):
  monkeypatch.setattr(type(talk.assets.codec), 'abilities', frozenset({'encode', 'decode'}))
  for task, form in (('speak', WAV), ('ask', JSON), ('ask', WAV), ('ask', PCM)):
    told = client.post(f'/v1/{task}', json={'text': 'one'}, headers={'accept': form})
    assert told.status_code == 422 and 'cannot stream' in told.json()['error']


@pytest.fixture
def chatty_seed(talk, client):
  """With which much is said to 'one', sound too."""
  for seed in range(100):
    events = ask(client, '/v1/ask', 'one', seed=seed, **warm(1.0))
    if text_of(events) and pcm_of(events):
      return seed, text_of(events)
  raise AssertionError('it says nothing')


def test_text_of_an_answer_needs_no_codec_that_makes_sound(talk, chatty_seed):
  changed, (seed, text) = copy.copy(talk), chatty_seed
  changed.assets = talk.assets._replace(codec=external.External('theirs', CODES))
  with serving(changed) as client:
    settings = {'seed': seed, **warm(1.0)}
    plain = {'accept': 'text/plain'}
    told = client.post('/v1/ask', json={'text': 'one'}, params=settings, headers=plain)
    assert (told.status_code, told.text) == (200, text)
    told = client.post('/v1/ask', json={'text': 'one'}, params=settings)
    assert told.status_code == 422 and "codec 'theirs'" in told.json()['error']


def served(talk, **changes):
  """A service of the same model with other assets."""
  changed = copy.copy(talk)
  changed.assets = talk.assets._replace(**changes)
  return service.Service(changed, limits.Limits())


def test_who_can_answer_nothing_serves_nothing(talk):
  theirs = external.External('theirs', CODES)
  for changes in ({'prompts': {}}, {'codec': theirs, 'prompts': {'speak': ['a']}}):
    with pytest.raises(
      errors.UserError, match="nothing to serve. 'speak' .*'transcribe' .*'an"
    ):
      served(talk, **changes).check()


def test_tasks_that_cannot_be_answered_are_told_before_they_are_asked(talk, caplog):
  served(talk).check()
  assert not caplog.records and not served(talk).refused
  one = served(talk, prompts={'speak': ['a', 'b'], 'answer': []})
  one.check()
  told = [record.getMessage() for record in caplog.records]
  assert [text.split(':')[0] for text in told] == [
    "'transcribe' cannot be answered",
    "'answer' cannot be answered",
  ]
  assert all('no prompt for task' in text for text in told)
  with starlette_client.TestClient(app.make(one)) as client:
    about = client.get('/v1/model').json()
  assert about['voices'] == {'speak': 2, 'transcribe': 0, 'ask': 0}


def test_what_the_codec_does_not_know_is_null(talk):
  theirs = served(talk, codec=external.External('theirs', CODES))
  with starlette_client.TestClient(app.make(theirs)) as client:
    told = client.get('/v1/model')
  about = told.json()
  assert told.status_code == 200 and about['codebook_size'] == CODES
  assert about['sample_rate'] is about['frame_rate'] is about['limits']['recording'] is None
  assert about['voices']['speak'] == about['voices']['transcribe'] == 0
  assert about['abilities'] == []


def test_samples_that_are_no_numbers_are_refused(client):
  nan = np.full(100, np.nan, '<f4').tobytes()
  head = bytearray(audio_io.wav_header(16_000, len(nan)))
  head[20], head[34] = 3, 32  # of 32-bit floats
  head[28:34] = (64_000).to_bytes(4, 'little') + (4).to_bytes(2, 'little')
  told = client.post('/v1/transcribe', content=bytes(head) + nan, headers={'content-type': WAV})
  assert told.status_code == 400 and 'not finite' in told.json()['error']
