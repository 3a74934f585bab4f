"""The process: a socket, an application, and a quiet end."""

import asyncio
import contextlib
import math
import socket

import uvicorn
from absl import logging

from ttt_jax.serving import app as app_lib
from ttt_jax.serving import limits as limits_lib
from ttt_jax.serving import protocol
from ttt_jax.serving import service as service_lib

LOOPBACK = ('localhost', '127.0.0.1', '[::1]')


class Server(uvicorn.Server):
  """Serves until SIGTERM or SIGINT, then finishes what it took; see `serve_on`.

  Attributes:
    failed: whether it ended because it could not begin.
  """

  def __init__(
    self,
    service: service_lib.Service,
    host: str,
    keys: tuple[str, ...] = (),
    warm: bool = True,
  ):
    """Opens nothing.

    Args:
      service: not started.
      host: by which it may be called, beside the names of this machine itself.
      keys: as of `app.make`.
      warm: as of `Service.start`.
    """
    self._service, self._warm, self.failed = service, warm, False
    limits = service.limits
    # Keys say enough; without them only who means this server may ask.
    hosts = None if keys else (*LOOPBACK, host)
    super().__init__(
      uvicorn.Config(
        app_lib.make(service, keys, hosts),
        http=protocol.within(limits),
        ws='none',
        lifespan='off',
        log_config=None,
        access_log=False,
        log_level='error',  # what strangers do wrong is told to them, and fills no log
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=math.ceil(_longest(limits)),
      )
    )

  def serve_on(self, listener: socket.socket) -> None:
    """Answers who connects to a socket that listens; returns when all is finished."""
    self.run([listener])

  async def startup(self, sockets=None) -> None:
    """Answers at once, so that it can be asked whether it is ready."""
    await super().startup(sockets)
    self._starting = asyncio.get_running_loop().run_in_executor(None, self._start)

  async def shutdown(self, sockets=None) -> None:
    """Takes no more, and waits for what was taken."""
    logging.info('finishing what was taken')
    await super().shutdown(sockets)
    with contextlib.suppress(Exception):  # was told when it happened
      await self._starting
    await asyncio.get_running_loop().run_in_executor(None, self._service.close)

  def _start(self) -> None:
    try:
      self._service.start(self._warm)
    except Exception:
      logging.exception('the engine could not start')
      self.failed = self.should_exit = True
      raise
    logging.info('ready')


def _longest(limits: limits_lib.Limits) -> float:
  """Seconds that a request may take whose head is there, and who reads it at the end."""
  return limits.body_seconds + limits.answer_seconds + limits.stall_seconds + 1
