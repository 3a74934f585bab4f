"""Serves a trained model over HTTP, with a page to talk with it.

ttt-serve --checkpoint=RUN
ttt-serve --checkpoint=RUN --host=0.0.0.0 --port=8000 --api_key_file=KEYS

Settings of decoding are those of the run, then of --preset, then of their own flags; a request
may change some of them for itself. docs/serving.md has the protocol.
"""

import dataclasses
import functools
import ipaddress
import pathlib
import signal
import socket
import sys

from absl import flags, logging

from ttt_jax import description, errors
from ttt_jax.cli import decoding, settings
from ttt_jax.sampling import session as session_lib
from ttt_jax.serving import limits  # what else is there may need the extra

_LIMITS = limits.Limits()

_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
_HOST = flags.DEFINE_string('host', '127.0.0.1', 'Address to listen on.')
_PORT = flags.DEFINE_integer('port', 8000, 'Port; 0: any that is free.', 0, 65535)
_KEYS = flags.DEFINE_string('api_key_file', None, 'File of keys, one a line: who may ask.')
_BATCH = flags.DEFINE_integer('batch', None, 'Answers at a time.')
_PROMPT = flags.DEFINE_integer('max_prompt', 512, 'Tokens of a prompt, its recording included.')
_QUEUE = flags.DEFINE_integer('queue', _LIMITS.queue, 'Requests that may wait.', 0)
_SECONDS = flags.DEFINE_float(
  'answer_seconds', _LIMITS.answer_seconds, 'For an answer, its wait included.', 1
)
_WARM = flags.DEFINE_boolean('warm', True, 'Compile what is usual before the first request.')


def main():
  """Reads the flags, and serves."""
  try:
    from ttt_jax.serving import server, service
  except ImportError as error:
    raise errors.UserError(
      f"serving needs {error.name}: pip install 'ttt_jax[serve]'"
    ) from error
  keys, listener = _keys(), _listener()
  sampling = decoding.changed(description.config_of(_CHECKPOINT.value).sampling)
  own = {'max_prompt': min(_PROMPT.value, sampling.max_prompt)}
  own |= {} if _BATCH.value is None else {'batch': _BATCH.value}
  session = session_lib.Session.load(_CHECKPOINT.value, dataclasses.replace(sampling, **own))
  within = limits.Limits(queue=_QUEUE.value, answer_seconds=_SECONDS.value)
  serves = service.Service(session, within)
  serves.check()
  made = server.Server(serves, _HOST.value, keys, _WARM.value)
  host, port = listener.getsockname()[:2]
  address = f'[{host}]:{port}' if ':' in host else f'{host}:{port}'
  print(f'listening on http://{address}', file=sys.stderr, flush=True)
  logging.get_absl_logger().setLevel('INFO')
  # Uvicorn finishes what was taken, and raises the signal again.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit(0))
  made.serve_on(listener)
  if made.failed:
    sys.exit(1)


def _keys() -> tuple[str, ...]:
  path = _KEYS.value
  if path is None:
    if not _is_loopback(_HOST.value):
      raise errors.UserError(
        f'--host={_HOST.value} lets others in: say who may ask by --api_key_file=FILE'
      )
    return ()
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8').split('\n')
  except (OSError, UnicodeDecodeError) as error:
    raise errors.UserError(f'--api_key_file={path}: cannot be read ({error})') from error
  keys = tuple(line.strip() for line in lines if line.strip())
  if not keys:
    raise errors.UserError(f'--api_key_file={path}: holds no key; write one on a line')
  return keys


def _is_loopback(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == 'localhost'


def _listener() -> socket.socket:
  host, port = _HOST.value, _PORT.value
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=512)
  except OSError as error:
    raise errors.UserError(
      f'--host={host} --port={port}: cannot listen there ({error.strerror or error}); take '
      'another port'
    ) from error


run = functools.partial(settings.run, main)

if __name__ == '__main__':
  run()
