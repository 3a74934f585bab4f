"""The routes."""

import asyncio
import contextlib
import functools
import hmac
import importlib.metadata
import pathlib
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import fastapi
import pydantic
from absl import logging
from fastapi import exceptions, responses, staticfiles
from starlette import requests

from ttt_jax import assets as assets_lib
from ttt_jax import config as config_lib
from ttt_jax.codecs import codec as codec_lib
from ttt_jax.serving import hearing, metrics, problems, telling
from ttt_jax.serving import limits as limits_lib
from ttt_jax.serving import service as service_lib

PAGE = pathlib.Path(__file__).parent / 'page'
# The page asks for nothing but what this server has.
_POLICY = (
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
  "connect-src 'self'; media-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; "
  "form-action 'none'"
)
_FAILED = 'the server failed'
_T = TypeVar('_T')


class Wish(pydantic.BaseModel):
  """Settings of a request, in its query."""

  model_config = pydantic.ConfigDict(extra='forbid')

  voice: int = pydantic.Field(0, ge=0, description='Of the voices that the task has.')
  seed: int = pydantic.Field(0, ge=0, lt=2**32, description='For drawing.')
  text_temperature: float | None = pydantic.Field(
    None, ge=0, le=100, allow_inf_nan=False, description='Of text; 0 takes the likeliest.'
  )
  audio_temperature: float | None = pydantic.Field(
    None, ge=0, le=100, allow_inf_nan=False, description='Of audio; likewise.'
  )
  steps_per_block: int | None = pydantic.Field(
    None, ge=1, le=4096, description='Diffusion steps of a block of audio.'
  )
  threshold: float | None = pydantic.Field(
    None, ge=0, lt=1, description='Above 0: reveal all over this probability.'
  )
  max_text: int | None = pydantic.Field(None, ge=1, description='Text tokens.')
  max_audio: int | None = pydantic.Field(None, ge=1, description='Audio tokens of a span.')
  blocks: bool = pydantic.Field(False, description='Tell blocks of audio, step by step.')
  rate: int = pydantic.Field(16_000, description='Samples a second, of PCM that is sent.')


_TEXT_BODY = {
  'schema': {
    'type': 'object',
    'properties': {'text': {'type': 'string'}},
    'required': ['text'],
    'additionalProperties': False,
  }
}
_SOUND_BODY = {'schema': {'type': 'string', 'format': 'binary'}}


def _body(*kinds: str) -> dict[str, Any]:
  content = {k: _TEXT_BODY if k == hearing.JSON else _SOUND_BODY for k in kinds}
  return {'requestBody': {'required': True, 'content': content}}


def make(
  service: service_lib.Service, keys: tuple[str, ...] = (), hosts: tuple[str, ...] | None = None
) -> fastapi.FastAPI:
  """The application.

  Args:
    service: started and closed by the caller.
    keys: one of which a request must bear; none: everybody may ask.
    hosts: names by which the server is called; None: any. A page elsewhere whose name is
      made to point here calls it by another.
  """
  app = fastapi.FastAPI(
    title='ttt_jax',
    version=importlib.metadata.version('ttt_jax'),
    description='A model that reads, listens and speaks.',
    responses={429: {'description': 'Too many ask: see Retry-After.'}},
  )
  sounds = (hearing.WAV, hearing.PCM)
  api = fastapi.APIRouter(dependencies=[fastapi.Depends(_key_holder(keys))])

  @api.post('/v1/speak', openapi_extra=_body(hearing.JSON))
  async def speak(request: fastapi.Request, wish: Annotated[Wish, fastapi.Query()]):
    """Text in, sound out: WAV, unless the Accept header asks for another form."""
    return await _answer(service, request, assets_lib.SPEAK, wish, (hearing.JSON,))

  @api.post('/v1/transcribe', openapi_extra=_body(*sounds))
  async def transcribe(request: fastapi.Request, wish: Annotated[Wish, fastapi.Query()]):
    """A recording in, text out."""
    return await _answer(service, request, assets_lib.TRANSCRIBE, wish, sounds)

  @api.post('/v1/ask', openapi_extra=_body(*sounds, hearing.JSON))
  async def ask(request: fastapi.Request, wish: Annotated[Wish, fastapi.Query()]):
    """A question in, text and sound out."""
    return await _answer(service, request, assets_lib.ANSWER, wish, (*sounds, hearing.JSON))

  @api.get('/v1/model')
  async def model():
    """What can be asked, and the settings that a request may change."""
    return _about(service)

  @api.get('/metrics', response_class=responses.PlainTextResponse)
  async def counted():
    """In the text format of Prometheus."""
    gauges = {
      'queue': ('Requests that wait for a place.', lambda: service.engine.load[0]),
      'batch': ('Answers under way.', lambda: service.engine.load[1]),
      'ready': ('Whether requests are taken.', lambda: service.ready),
    }
    text = service.metrics.text(gauges)
    return responses.Response(text, headers={'content-type': metrics.CONTENT_TYPE})

  @app.get('/healthz')
  async def healthy():
    """Whether the process is worth keeping."""
    good = service.healthy
    return responses.JSONResponse({'healthy': good}, 200 if good else 500)

  @app.get('/readyz')
  async def ready():
    """Whether requests are taken."""
    good = service.ready
    return responses.JSONResponse({'ready': good}, 200 if good else 503)

  app.include_router(api)
  app.mount('/', staticfiles.StaticFiles(directory=PAGE, html=True))
  app.add_exception_handler(problems.Problem, _refuse)
  app.add_exception_handler(exceptions.HTTPException, _plain)
  app.add_exception_handler(exceptions.StarletteHTTPException, _plain)
  app.add_exception_handler(exceptions.RequestValidationError, _explain)
  app.add_exception_handler(Exception, _fail)
  app.add_middleware(_Headers, hosts=hosts)
  return app


def _key_holder(keys: tuple[str, ...]):
  known = [key.encode() for key in keys]

  def check(request: fastapi.Request) -> None:
    kind, _, key = request.headers.get('authorization', '').partition(' ')
    given = key.strip().encode()
    fits = [hmac.compare_digest(given, one) for one in known]  # each, in the same time
    if known and not (kind.lower() == 'bearer' and any(fits)):
      headers = {'www-authenticate': 'Bearer'}
      raise problems.Problem(401, 'this needs an API key', headers)

  return check


async def _answer(service, request, task: str, wish: Wish, kinds: tuple[str, ...]):
  try:
    response = await _answered(service, request, task, wish, kinds)
  except problems.Problem as problem:
    service.metrics.answered(task, problem.status)
    raise
  except Exception as error:  # whatever it was: who asked is to be told, and nothing of it
    logging.exception('a request failed')
    service.metrics.answered(task, 500)
    raise problems.Problem(500, _FAILED) from error
  service.metrics.answered(task, response.status_code)
  return response


async def _answered(service, request, task: str, wish: Wish, kinds: tuple[str, ...]):
  if not service.ready:
    raise problems.Problem(503, 'the server is not ready', {'retry-after': '5'})
  form = telling.wanted(task, request.headers.get('accept', '*/*'))
  kind = hearing.kind_of(request.headers.get('content-type', ''), kinds)
  given = {name: getattr(wish, name) for name in config_lib.OF_A_REQUEST}
  settings = service.settings({k: v for k, v in given.items() if v is not None})
  with service.receiving() as count:
    body = await _read(request, count, service.limits)
    if kind == hearing.JSON:
      said = hearing.text(body, service.limits)
    else:
      said = functools.partial(hearing.recording, body, kind, wish.rate, service.limits)
    drafts = wish.blocks and form == telling.EVENTS
    sound = telling.sounds(task, form)
    asked = service.answer(task, said, wish.voice, wish.seed, settings, drafts, sound)
    answer = await _while_there(request, asked)
  assets = service.session.assets
  rate = assets.codec.sample_rate if sound else None
  if form == hearing.JSON:
    return responses.JSONResponse(await _while_there(request, telling.whole(answer, rate)))
  content = telling.pieces(answer, form, rate, assets.vocabulary, drafts)
  headers = {'content-type': telling.content_type(form, rate), 'x-accel-buffering': 'no'}
  return _Streaming(content, headers=headers)


class _Streaming(responses.StreamingResponse):
  """Ends what it tells when the client has gone; what breaks breaks the connection."""

  async def __call__(self, scope, receive, send) -> None:
    # A response that is left open is one that the client can tell from a whole one.
    async with contextlib.aclosing(self.body_iterator):
      with contextlib.suppress(telling.BrokenError):
        await super().__call__(scope, receive, send)


async def _while_there(request: fastapi.Request, work: Coroutine[Any, Any, _T]) -> _T:
  """What work leads to; given up if the client goes away before it has ended."""

  async def leave():
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  done, left = asyncio.ensure_future(work), asyncio.ensure_future(leave())
  try:
    await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
    if done.done():
      return done.result()
    raise problems.Problem(499, 'the client went away')  # nobody reads it
  finally:
    for task in (done, left):
      task.cancel()
    await asyncio.gather(done, left, return_exceptions=True)


async def _read(request: fastapi.Request, count, limits) -> bytes:
  """The body, refused as soon as it is too large or too slow."""
  declared = request.headers.get('content-length', '')
  parts = []
  try:
    async with asyncio.timeout(limits.body_seconds):
      if declared.isdigit() and int(declared) > limits.body:
        raise problems.Problem(413, f'the body is larger than {limits.body} bytes')
      async for part in request.stream():
        count(len(part))
        parts.append(part)
  except TimeoutError as error:
    raise problems.Problem(408, 'the body took too long') from error
  except requests.ClientDisconnect as error:
    raise problems.Problem(499, 'the client went away') from error
  return b''.join(parts)


def _about(service: service_lib.Service) -> dict[str, Any]:
  session, limits = service.session, service.limits
  sampling, codec = session.config.sampling, session.assets.codec
  tasks = {'speak': assets_lib.SPEAK, 'transcribe': assets_lib.TRANSCRIBE}
  tasks |= {'ask': assets_lib.ANSWER}
  refused, prompts = service.refused, session.assets.prompts
  voices = {n: 0 if task in refused else len(prompts[task]) for n, task in tasks.items()}
  frame_rate = _known(codec, 'frame_rate')
  return {
    'ready': service.ready,
    'voices': voices,
    'abilities': sorted(codec.abilities),
    'sample_rate': _known(codec, 'sample_rate'),
    'frame_rate': frame_rate,
    'codebook_size': codec.codebook_size,
    'block_size': sampling.block_size,
    'order': sampling.order,
    'settings': {name: getattr(sampling, name) for name in config_lib.OF_A_REQUEST},
    'limits': {
      'text': limits.text,
      'recording': frame_rate and min(limits.recording, sampling.max_prompt / frame_rate),
      'body': limits.body,
    },
  }


def _known(codec: codec_lib.Codec, name: str) -> float | None:
  """A rate of the codec; None where it is not here to tell."""
  try:
    return getattr(codec, name)
  except codec_lib.CodecError:
    return None


async def _refuse(request: fastapi.Request, problem: problems.Problem):
  content = {'error': str(problem)}
  if problem.status != 413:
    return responses.JSONResponse(content, problem.status, problem.headers)
  return _Lingering(content, problem.status, {**problem.headers, 'connection': 'close'})


class _Lingering(responses.JSONResponse):
  """Goes on reading for a while, or who is still sending would never see it."""

  async def __call__(self, scope, receive, send) -> None:
    head = {'type': 'http.response.start', 'status': self.status_code}
    await send(head | {'headers': self.raw_headers})
    body = {'type': 'http.response.body', 'body': self.body}
    await send(body | {'more_body': True})
    with contextlib.suppress(TimeoutError):  # who sends for longer than that need not be told
      async with asyncio.timeout(limits_lib.LINGER):
        while (message := await receive())['type'] == 'http.request':
          if not message.get('more_body'):
            break
    await send({'type': 'http.response.body', 'body': b''})


async def _plain(request: fastapi.Request, error: exceptions.StarletteHTTPException):
  return responses.JSONResponse({'error': error.detail}, error.status_code, error.headers)


async def _explain(request: fastapi.Request, error: exceptions.RequestValidationError):
  """Which settings are wrong; what was given is not repeated."""
  found = [f'{one["loc"][-1]}: {one["msg"]}' for one in error.errors()]
  return responses.JSONResponse({'error': '; '.join(found)[:1000]}, 422)


async def _fail(request: fastapi.Request, error: Exception):
  """What nobody foresaw; uvicorn logs it, and closes the connection."""
  return responses.JSONResponse({'error': _FAILED}, 500, {'connection': 'close'})


class _Headers:
  """Refuses other hosts, and adds what browsers are to know."""

  def __init__(self, app, hosts: tuple[str, ...] | None):
    self._app, self._hosts = app, hosts

  async def __call__(self, scope, receive, send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    if self._hosts is not None and _host(scope) not in self._hosts:
      response = responses.JSONResponse({'error': 'this host is not served here'}, 421)
      await response(scope, receive, send)
      return

    async def told(message):
      if message['type'] == 'http.response.start':
        headers = [
          (b'x-content-type-options', b'nosniff'),
          (b'referrer-policy', b'no-referrer'),
        ]
        # The page of the API is FastAPI's, which brings its scripts from elsewhere.
        if scope['path'] not in ('/docs', '/redoc', '/docs/oauth2-redirect'):
          headers.append((b'content-security-policy', _POLICY.encode()))
        if scope['path'].startswith('/v1'):
          headers.append((b'cache-control', b'no-store'))
        message = message | {'headers': [*message['headers'], *headers]}
      await send(message)

    await self._app(scope, receive, told)


def _host(scope) -> str:
  host = dict(scope['headers']).get(b'host', b'').decode('latin-1').lower()
  return host.split(']')[0] + ']' if host.startswith('[') else host.split(':')[0]
