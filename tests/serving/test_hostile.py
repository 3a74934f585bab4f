"""Clients that dawdle, leave or crowd: each is dropped at its limit, and the rest hear all."""

import concurrent.futures
import contextlib
import functools
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import machines
import pytest
from heard import EVENTS, ask, events_of, pcm_of, serving, text_of, until, warm

from ttt_jax import description, parameters
from ttt_jax.serving import app, limits

pytest_plugins = ['talking']

HEAD = b'POST /v1/ask HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n'
QUICK = {'head_seconds': 2.0, 'body_seconds': 2.0, 'stall_seconds': 2.0}  # who is well makes it


def connect(client, sent=b'', buffer=None):
  made = socket.socket()
  if buffer:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
  made.connect(('127.0.0.1', client.port))
  made.settimeout(60)
  made.sendall(sent)
  return made


def rest_of(connection):
  """All that comes until the server closes it."""
  parts = []
  with contextlib.suppress(ConnectionResetError):
    while part := connection.recv(2**16):
      parts.append(part)
  return b''.join(parts)


def test_heads_and_bodies_that_do_not_come_are_not_waited_for(talk):
  with serving(talk, **QUICK) as client:
    begun = [b'', b'G', HEAD[:30], HEAD]
    begun += [HEAD + b'content-length: 9\r\n\r\n{"te']
    begun += [HEAD + b'transfer-encoding: chunked\r\n\r\n1\r\n{\r\n']
    with contextlib.ExitStack() as stack:
      # A second head on a connection that was good.
      healthy = b'GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n'
      second = stack.enter_context(connect(client, healthy))
      assert b'200 OK' in second.recv(2**16)
      second.sendall(HEAD[:30])
      for slow in [stack.enter_context(connect(client, each)) for each in begun]:
        assert rest_of(slow).startswith(b'HTTP/1.1 408')
      assert b'HTTP/1.1 408' in rest_of(second)
    assert client.service._receiving == 0
    assert ask(client, '/v1/ask', 'one')[-1][0] == 'done'


def test_who_reads_too_slowly_is_dropped(talk):
  with serving(talk, **QUICK) as client:
    page = b'GET /main.js HTTP/1.1\r\nhost: localhost\r\n\r\n'
    with connect(client, 3000 * page, buffer=4096) as slow:  # far more than buffers hold

      def dropped():
        try:
          slow.send(b'\r\n')
        except ConnectionError:
          return True

      until(dropped)
    assert ask(client, '/v1/ask', 'one')[-1][0] == 'done'


def test_who_reads_slowly_but_steadily_hears_all(talk, monkeypatch, tmp_path):
  size = 2**22  # more than the system takes at once
  (tmp_path / 'large').write_bytes(bytes(size))
  monkeypatch.setattr(app, 'PAGE', tmp_path)
  stall = 2 * QUICK['stall_seconds']
  with serving(talk, **QUICK | {'stall_seconds': stall}) as client:
    asked = b'GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n'
    with connect(client, asked, buffer=4096) as slow:
      head, rest = slow.recv(2**12).split(b'\r\n\r\n')
      heard = len(rest)

      def hear(size, pause):
        part = slow.recv(size)
        assert part, 'dropped'
        time.sleep(pause)
        return len(part)

      def steadily():
        last, heard = time.monotonic() + 1.5 * stall, 0
        while time.monotonic() < last:
          heard += hear(2**11, 0.1)
        return heard

      heard += steadily()
      while heard < size - 2**17:
        heard += hear(2**15, 0)
      heard += steadily()  # to the end, which the server has written by then
      while heard < size:
        heard += hear(2**15, 0)
      assert b'200 OK' in head and heard == size


def test_the_rest_of_a_body_that_was_answered_is_not_waited_for(talk):
  with serving(talk, **QUICK) as client:
    sized, chunked = b'content-length: 100000\r\n\r\n', b'transfer-encoding: chunked\r\n\r\n'
    begun = {
      b'200': (b'GET /healthz HTTP/1.1\r\nhost: localhost\r\n' + sized, b'x'),
      b'405': (HEAD.replace(b'/v1/ask', b'/nothing') + sized, b'x'),
      b'415': (HEAD.replace(b'/json', b'/nothing') + sized, b'x'),
      b'421': (HEAD.replace(b'localhost', b'there') + chunked, b'1\r\nx\r\n'),
    }
    for status, (head, part) in begun.items():
      with connect(client, head) as slow:
        assert slow.recv(2**16).startswith(b'HTTP/1.1 ' + status)
        until(functools.partial(_is_left, slow, part))


def _is_left(connection, part):
  time.sleep(0.1)
  try:
    connection.send(part)
  except ConnectionError:
    return True


def test_what_follows_an_answer_and_is_no_body_fills_no_log(talk, caplog):
  with serving(talk) as client:
    asked = b'GET /healthz HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n'
    with connect(client, asked) as made:
      assert b'200 OK' in made.recv(2**16)
      made.sendall(b'no number\r\n')
      rest_of(made)
  assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_who_sends_the_rest_of_a_body_that_was_answered_may_ask_again(talk, monkeypatch):
  monkeypatch.setattr(limits, 'LINGER', 60)
  with serving(talk) as client:
    asked = b'GET /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n'
    with connect(client, asked) as made:
      for _ in range(3):
        assert b'200 OK' in made.recv(2**16)
        made.sendall(b'rest' + asked)


def test_who_leaves_makes_room_at_once(talk):
  with serving(talk) as client:
    engine = client.service.engine
    turn, engine._turn = engine._turn, lambda: time.sleep(0.01)  # nothing goes on
    streams = [
      connect(client, HEAD + b'accept: %s\r\ncontent-length: 15\r\n\r\n{"text": "one"}' % form)
      for form in (b'text/event-stream', b'application/json', b'audio/wav')
    ]
    try:
      until(lambda: engine.load[0] == 3)
      for stream in streams:
        stream.close()
      until(lambda: engine.load == (0, 0))
    finally:
      engine._turn = turn  # or the server would never end
    assert ask(client, '/v1/ask', 'one')[-1][0] == 'done'


def test_two_hundred_who_say_nothing_do_not_change_what_others_hear(talk):
  with serving(talk) as client:
    settings = {'seed': 3, **warm(1.0)}
    wanted = ask(client, '/v1/ask', 'one two', **settings)
    with contextlib.ExitStack() as crowd:
      for i in range(200):
        begun = (b'', HEAD[:40], HEAD + b'content-length: 10\r\n\r\n{')[i % 3]
        crowd.enter_context(connect(client, begun))
      with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for events in pool.map(
          lambda _: ask(client, '/v1/ask', 'one two', **settings), range(4)
        ):
          assert (text_of(events), pcm_of(events)) == (text_of(wanted), pcm_of(wanted))


def test_more_connections_than_there_may_be_are_refused_in_words(talk):
  with serving(talk, connections=6) as client, contextlib.ExitStack() as crowd:
    for _ in range(6):
      crowd.enter_context(connect(client))
    with connect(client, b'GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n') as late:
      assert b'503' in late.recv(2**16)


def test_at_the_end_bodies_that_are_coming_are_waited_for(talk, monkeypatch):
  with serving(talk, answer_seconds=0.5) as client:
    monkeypatch.setattr(client.service.engine, '_turn', lambda: time.sleep(0.01))
    with connect(client, HEAD + b'content-length: 15\r\n\r\n{"text": ') as slow:
      until(lambda: client.service._receiving)
      client.server.should_exit = True
      time.sleep(3)  # more than any answer may take
      slow.sendall(b'"one"}')
      assert b'time is up' in rest_of(slow)


@pytest.fixture
def run(chatty, assets, tmp_path):
  config, params = chatty
  described = description.of(config, assets.vocabulary.fingerprint)
  description.write(tmp_path, described, assets)
  parameters.save(tmp_path, params, {})
  return tmp_path


def tool(*arguments):
  environment = os.environ | {'XLA_FLAGS': machines.xla_flags(devices=1)}
  command = [sys.executable, '-m', 'ttt_jax.cli.serve', *map(str, arguments)]
  return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_at_sigterm_it_finishes_what_it_took(run, talk):
  with tool(f'--checkpoint={run}', '--port=0', '--nowarm') as server:
    try:
      address = re.match(r'listening on (http://127\.0\.0\.1:\d+)\n', server.stderr.readline())
      base = address[1]
      with httpx.Client(base_url=base, timeout=120) as client:
        until(lambda: client.get('/readyz').status_code == 200)
        asked = {'json': {'text': 'one'}, 'params': {'seed': 1, **warm(1.0)}}
        with client.stream('POST', '/v1/ask', headers=EVENTS, **asked) as told:
          server.send_signal(signal.SIGTERM)
          events = list(events_of(told.iter_lines()))
        assert events[-1][0] == 'done'
      assert server.wait(60) == 0
      with pytest.raises(httpx.ConnectError):
        httpx.get(base)
      said = server.stderr.read()
      assert 'Traceback' not in said and 'finishing' in said
    finally:
      server.kill()


@pytest.mark.parametrize(
  'flags,message',
  [
    (['--host=0.0.0.0'], 'say who may ask by --api_key_file'),
    (['--api_key_file=/nowhere'], '/nowhere: cannot be read'),
    (['--api_key_file={empty}'], 'holds no key'),
    (['--port={taken}'], 'cannot listen there'),
    (['--checkpoint=/nowhere'], 'no run is described here'),
  ],
)
def test_a_server_that_cannot_be_says_why(tmp_path, flags, message):
  (tmp_path / 'keys').write_text('\n')
  with socket.create_server(('127.0.0.1', 0)) as taken:
    values = {'empty': tmp_path / 'keys', 'taken': taken.getsockname()[1]}
    with tool('--checkpoint=x', *(flag.format(**values) for flag in flags)) as server:
      said = server.stderr.read()
  assert server.returncode != 0 and message in said and 'Traceback' not in said
