"""Answers over HTTP are those of the model by itself, whoever asks beside."""

import base64
import concurrent.futures
import dataclasses
import pathlib
import subprocess

import machines
import numpy as np
import pytest
from conftest import make_config
from heard import EVENTS, ask, counted, pcm_of, text_of, warm, wav_of

from ttt_jax.codecs import audio_io
from ttt_jax.sampling import pieces
from ttt_jax.serving import hearing, limits

pytest_plugins = ['talking']

PATHS = {'/v1/speak': 'speak', '/v1/ask': 'answer'}


def alone(talk, task, said, seed=0, **settings):
  """Text and PCM that the decoder says to one."""
  sampling = dataclasses.replace(talk.config.sampling, **settings)
  made, text, sound = pieces.Pieces(talk.assets), '', b''
  for event in talk.decoder.stream(talk.prompt(task, said), seed, sampling):
    for piece in made.push(event):
      text, sound = text + piece.text, sound + audio_io.pcm(piece.wave)
  return text, sound, event.complete


@pytest.fixture(scope='module')
def seed(talk):
  """With which much is said to 'one two' at temperature 1: text, and sound of some blocks."""
  for number in range(100):
    text, sound, _ = alone(talk, 'answer', 'one two', number, **warm(1.0))
    if text and len(sound) > 2 * 16_000:
      return number
  raise AssertionError('it says nothing')


def test_thirty_two_at_once_hear_what_each_hears_alone(talk, client):
  asked = []
  for i in range(32):
    settings = {'seed': i % 7, **warm((0, 0.7, 1.5)[i % 3])}
    settings |= {'steps_per_block': 1 + i % 4} if i % 2 else {'threshold': 0.05 * (i % 5)}
    asked.append((tuple(PATHS)[i % 2], ('one', 'two three', 'four')[i % 3], settings))
  with concurrent.futures.ThreadPoolExecutor(32) as pool:
    told = list(pool.map(lambda one: ask(client, one[0], one[1], **one[2]), asked))
  answers = set()
  for (path, said, settings), events in zip(asked, told):
    text, sound, complete = alone(talk, PATHS[path], said, **settings)
    assert (text_of(events), pcm_of(events)) == (text, sound)
    name, content = events[-1]
    assert name == 'done' and content['complete'] == complete
    assert content['sound_seconds'] == pytest.approx(len(sound) / 32_000)
    assert (content['first_sound'] is None) == (not sound)
    answers.add((text, sound))
  assert len(answers) > 8


def test_every_form_is_the_same_answer(talk, client, seed):
  settings = {**warm(1.0), 'seed': seed}
  text, sound, complete = alone(talk, 'answer', 'one two', **settings)

  def said(accept):
    return client.post(
      '/v1/ask', json={'text': 'one two'}, params=settings, headers={'accept': accept}
    )

  whole = said('application/json').json()
  wav = audio_io.wav_header(16_000, len(sound)) + sound
  assert (whole['text'], whole['complete']) == (text, complete)
  assert base64.b64decode(whole['wav']) == wav
  assert whole['sound_seconds'] == pytest.approx(len(sound) / 32_000)
  found = said('audio/wav')
  assert found.headers['content-type'] == 'audio/wav'
  assert found.content == audio_io.wav_header(16_000) + sound
  found = said('audio/pcm')
  assert found.headers['content-type'] == 'audio/pcm;rate=16000' and found.content == sound
  assert said('text/plain').text == text
  assert said('image/png').status_code == 406
  assert said('*/*').json()['text'] == text


def test_recordings_are_heard_as_wav_and_as_pcm(talk, client):
  wav = wav_of(rate=8000)
  wave, rate = hearing.recording(wav, hearing.WAV, 0, limits.Limits())
  assert rate == 8000
  other = wav_of(seed=1)
  texts = []
  for content, kind, params in (
    (wav, 'audio/wav', {}),
    (wav[44:], 'audio/pcm', {'rate': 8000}),
    (other, 'audio/wav', {}),
  ):
    told = client.post(
      '/v1/transcribe', content=content, params=params, headers={'content-type': kind}
    )
    assert told.status_code == 200, told.text
    texts.append(told.json()['text'])
  heard = hearing.recording(other, hearing.WAV, 0, limits.Limits())
  wanted = [alone(talk, 'transcribe', said)[0] for said in ((wave, rate), heard)]
  assert wanted[0] != wanted[1]
  assert texts == [wanted[0], wanted[0], wanted[1]]


def test_blocks_are_told_step_by_step(talk, client, seed):
  settings = {**warm(1.0), 'seed': seed}
  events = ask(client, '/v1/ask', 'one two', blocks=True, **settings)
  codes, before, steps = [], None, 0
  for name, content in events:
    if name != 'block':
      continue
    if content['final']:
      codes += content['codes']
      before = None
      continue
    now = content['codes']
    assert len(now) == 4 and None in now
    steps += 1
    if before is not None:
      assert all(a is None or a == b for a, b in zip(before, now))
      assert now.count(None) == before.count(None) - 2
    before = now
  assert steps > 2 and set(map(type, codes)) == {int}
  sampling = dataclasses.replace(talk.config.sampling, **warm(1.0))
  (answer,) = talk.decoder([talk.prompt('answer', 'one two')], [seed], [sampling])
  assert codes == talk.assets.vocabulary.to_codes(answer.tokens).tolist()
  assert not any(name == 'block' for name, _ in ask(client, '/v1/ask', 'one two', **settings))


def test_the_server_tells_what_it_can_do_and_has_done(client):
  told = client.get('/v1/model').json()
  assert told['voices'] == {'speak': 1, 'transcribe': 1, 'ask': 1}
  assert (told['sample_rate'], told['block_size'], told['ready']) == (16_000, 4, True)
  assert told['settings']['steps_per_block'] == make_config().sampling.steps_per_block
  before = counted(client)
  events = ask(client, '/v1/ask', 'two', seed=1, **warm(1.0))
  bad = client.post('/v1/ask', json={'text': ''})
  after = counted(client)

  def grown(name):
    return after[name] - before.get(name, 0)

  assert bad.status_code == 422
  assert grown('ttt_requests_total{task="answer",status="200"}') == 1
  assert grown('ttt_requests_total{task="answer",status="422"}') == 1
  texts = sum(content['tokens'] for name, content in events if name == 'text')
  assert grown('ttt_tokens_total{kind="text"}') == texts > 0
  assert grown('ttt_answer_seconds_count') == 1
  assert grown('ttt_first_sound_seconds_count') == bool(pcm_of(events))
  assert grown('ttt_passes_total') > 0 and after['ttt_batch'] == after['ttt_queue'] == 0
  assert client.get('/healthz').json() == {'healthy': True}
  assert '/v1/speak' in client.get('/openapi.json').json()['paths']


def test_the_page_asks_for_nothing_elsewhere(client):
  for path in ('/', '/main.js', '/style.css', '/icon.svg'):
    told = client.get(path)
    assert told.status_code == 200
    assert "default-src 'none'" in told.headers['content-security-policy']
    text = told.text.replace('http://www.w3.org/2000/svg', '')
    assert 'http:' not in text and 'https:' not in text
  assert client.get('/../app.py').status_code == client.get('/app.py').status_code == 404


def test_a_voice_of_its_own_is_a_prompt_of_its_own(talk, client):
  assert client.post('/v1/speak', json={'text': 'one'}, params={'voice': 1}).status_code == 422
  told = client.post('/v1/speak', json={'text': 'one'}, headers=EVENTS)
  assert told.headers['cache-control'] == 'no-store'
  assert np.all([line[:5] in ('event', 'data:', '') for line in told.text.split('\n')])


def test_the_commands_of_the_manual_work_as_they_stand(client, tmp_path):
  machines.program('curl')
  manual = (pathlib.Path(__file__).parents[2] / 'docs' / 'serving.md').read_text()
  commands = [line for line in manual.splitlines() if 'curl -s' in line]
  assert len(commands) == 6
  for number, command in enumerate(commands):
    here = command.replace('localhost:8000', f'127.0.0.1:{client.port}')
    here = here.replace('curl -s', 'curl --fail-with-body -s').replace('| aplay', '| cat')
    done = subprocess.run(
      ['bash', '-o', 'pipefail', '-c', here], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, (command, done)
    if number == 0:
      assert (tmp_path / 'out.wav').read_bytes()[:4] == b'RIFF'
      (tmp_path / 'out.wav').write_bytes(wav_of())  # this model may have said nothing
    else:
      assert done.stdout
