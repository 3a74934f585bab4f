"""Readers of what clients of the server send."""

import asyncio
import contextlib
import io
import logging
import pathlib
import types
from collections.abc import Iterator

import toys
from target import Target
from uvicorn import server as uvicorn_server

from ttt_jax.codecs import audio_io
from ttt_jax.sampling import events, session
from ttt_jax.serving import hearing, limits, problems, server, service

LIMITS = limits.Limits(body=2**16, text=100, recording=2.0)
_KINDS = (hearing.JSON, hearing.WAV, hearing.PCM)


def request_body(folder: pathlib.Path) -> Target:
  """The first line is the content type, the second the rate, and the rest the body."""

  def read(data: bytes) -> None:
    head, _, rest = data.partition(b'\n')
    rate, _, body = rest.partition(b'\n')
    kind = hearing.kind_of(head.decode('latin-1'), _KINDS)
    if kind == hearing.JSON:
      hearing.text(body, LIMITS).encode()
    else:
      rate = int(rate) if rate.isdigit() and len(rate) < 20 else 16_000
      wave, _ = hearing.recording(body, kind, rate, LIMITS)
      audio_io.check_wave(wave)

  bodies = [(b'application/json; charset=utf-8', b'{"text": "one"}')]
  bodies += [(b'audio/pcm', toys.wav()[44:144])]
  bodies += [(b'audio/wav', wav) for wav in (toys.wav(50), *toys.sounds()) if wav[:1] == b'R']
  seeds = [b'\n'.join((head, b'16000', body)) for head, body in bodies]
  return Target(seeds, read, (problems.Problem,))


class _Engine:
  """Says the same to everybody, at once."""

  load, alive = (0, 0), True

  def __init__(self, tokens):
    self._tokens = tokens

  def reserve(self) -> int:
    return 0

  def submit(self, request, listen, drafts, ticket) -> int:
    vocabulary = toys.assets().vocabulary
    listen([*events.of_tokens(self._tokens, vocabulary), events.done(True)])
    return 0

  def cancel(self, ticket) -> None:
    pass


class _Decoder:
  """Of which a service needs no more than this, where its engine is another."""

  def places(self, batch, longest):
    return types.SimpleNamespace(free=batch)

  def request(self, prompt, seed=0, sampling=None):
    return prompt


class _Transport(asyncio.Transport):
  """A connection that keeps what it is sent."""

  def __init__(self):
    super().__init__({'peername': ('127.0.0.1', 1), 'sockname': ('127.0.0.1', 80)})
    self.sent, self._closing = io.BytesIO(), False

  def write(self, data) -> None:
    self.sent.write(data)

  def is_closing(self) -> bool:
    return self._closing

  def close(self) -> None:
    self._closing = True

  abort = close

  def get_write_buffer_size(self) -> int:
    return 0

  def set_write_buffer_limits(self, high=None, low=None) -> None:
    pass

  def pause_reading(self) -> None:
    pass

  def resume_reading(self) -> None:
    pass


def _service() -> service.Service:
  assets = toys.assets()
  asked = session.Session.__new__(session.Session)  # without a model
  asked.config, asked.assets, asked.decoder = toys.config(), assets, _Decoder()
  made = service.Service(asked, LIMITS)
  made.engine = _Engine(toys.record(2).document.tokens[-12:])
  made._open = True
  return made


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
  """All that is logged as an error."""
  lines, handler = [], logging.Handler(logging.ERROR)
  handler.emit = lambda record: lines.append(handler.format(record))
  logging.getLogger().addHandler(handler)
  try:
    yield lines
  finally:
    logging.getLogger().removeHandler(handler)


def request(folder: pathlib.Path) -> Target:
  """A whole connection, through our protocol and all routes, to an engine that is none."""
  app = server.Server(_service(), '127.0.0.1').config
  app.load()
  loop = asyncio.new_event_loop()

  async def talk(data: bytes) -> bytes:
    state, connection = uvicorn_server.ServerState(), _Transport()
    made = app.http_protocol_class(app, state, {}, _loop=loop)
    made.connection_made(connection)
    if data:  # nothing is never received
      made.data_received(data)
    for _ in range(30):  # what it can do before it hears that nothing follows
      await asyncio.sleep(0)
    if state.tasks:
      await asyncio.wait(state.tasks, timeout=0.05)
    made.connection_lost(None)
    while state.tasks:
      await asyncio.wait(set(state.tasks))
    return connection.sent.getvalue()

  def read(data: bytes) -> None:
    with _log() as lines:
      sent = loop.run_until_complete(talk(data))
    assert not lines, lines  # what strangers do wrong fills no log
    assert not sent or sent.startswith(b'HTTP/1.1 ')
    assert b'HTTP/1.1 500' not in sent, sent

  head = 'POST /v1/{} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {}\r\naccept: {}\r\n'
  seeds = []
  for path, kind, accept, body in (
    ('speak', hearing.JSON, 'audio/wav', b'{"text": "one"}'),
    ('ask?seed=3&text_temperature=0.5&max_text=5', hearing.JSON, '*/*', b'{"text": "one"}'),
    ('ask?blocks=true', hearing.JSON, 'text/event-stream', b'{"text": "two"}'),
    ('transcribe?rate=8000', hearing.PCM, 'text/plain', toys.wav()[44:144]),
    ('transcribe', hearing.WAV, 'application/json', toys.wav(50)),
  ):
    size = f'content-length: {len(body)}\r\n\r\n'
    seeds.append((head.format(path, kind, accept) + size).encode() + body)
  for path in ('/', '/main.js', '/v1/model', '/metrics', '/readyz', '/openapi.json'):
    seeds.append(f'GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n'.encode())
  chunked = head.format('speak', hearing.JSON, '*/*') + 'transfer-encoding: chunked\r\n\r\n'
  seeds.append(chunked.encode() + b'f\r\n{"text": "one"}\r\n0\r\n\r\n')
  # Refused for its form, while the rest of it turns out to be no body.
  seeds.append(chunked.replace(hearing.JSON, 'text/plain').encode() + b'no number\r\n')
  return Target(seeds, read)
