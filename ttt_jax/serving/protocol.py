"""A connection that may not dawdle: time limits that uvicorn itself has none of."""

import asyncio
import contextlib
import socket

import h11
from uvicorn.protocols.http import h11_impl

from ttt_jax.serving import limits as limits_lib

_LATE = b'HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'
_UNSENT = 2**14  # bytes of an answer that the system takes before it can send them


class Protocol(h11_impl.H11Protocol):
  """Drops who does not send a head, or does not read what is sent, in time."""

  limits: limits_lib.Limits
  _head: asyncio.TimerHandle | None = None
  _rest: asyncio.TimerHandle | None = None
  _stall: asyncio.TimerHandle | None = None

  def connection_made(self, transport) -> None:
    super().connection_made(transport)
    # What the system holds back looks as if it was read: it is to be little.
    made = transport.get_extra_info('socket')
    if made is not None:
      with contextlib.suppress(OSError):  # who came may have gone
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
    self._await_head()
    self._watch()

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    if self.conn.their_state is not h11.IDLE:
      self._head = _stopped(self._head)
    elif self._head is None and not self.transport.is_closing():
      self._await_head()

  def send_400_response(self, msg: str) -> None:
    """Ends what is under way too: nothing can be answered behind it."""
    try:
      super().send_400_response(msg)
    except h11.LocalProtocolError:  # it is the rest of what has its answer
      self.transport.close()
    if self.cycle is not None:
      self.cycle.disconnected = True
      self.cycle.message_event.set()

  def connection_lost(self, exc) -> None:
    for timer in (self._head, self._rest, self._stall):
      _stopped(timer)
    super().connection_lost(exc)

  def pause_writing(self) -> None:
    super().pause_writing()
    self._watch()

  def resume_writing(self) -> None:
    super().resume_writing()
    self._watch()

  def on_response_complete(self) -> None:
    super().on_response_complete()
    self._watch()  # the end of an answer may be left in the buffer of one who reads no more
    if self.conn.their_state is h11.SEND_BODY:  # nobody asks for the rest, nor counts its time
      _stopped(self._rest)
      self._rest = self.loop.call_later(limits_lib.LINGER, self._leave)

  def _leave(self) -> None:
    """Ends a connection on which a body goes on that was answered long ago."""
    if self.cycle.response_complete and self.conn.their_state is h11.SEND_BODY:
      self.transport.close()

  def _watch(self) -> None:
    """Looks in a while whether some of what waits to be sent was read."""
    _stopped(self._stall)
    waiting = self.transport.get_write_buffer_size()
    self._stall = self.loop.call_later(self.limits.stall_seconds, self._look, waiting)

  def _look(self, before: int) -> None:
    # Where more is being written, what was read cannot be told: the end of it is watched.
    writing = self.cycle and self.cycle.response_started and not self.cycle.response_complete
    still = not writing or self.flow.write_paused or self.transport.is_closing()
    if still and self.transport.get_write_buffer_size() >= before > 0:
      self.transport.abort()
    else:
      self._watch()

  def _await_head(self) -> None:
    self._head = self.loop.call_later(self.limits.head_seconds, self._late)

  def _late(self) -> None:
    self._head = None
    if not self.transport.is_closing():
      self.transport.write(_LATE)
      self.transport.close()


def _stopped(timer: asyncio.TimerHandle | None) -> None:
  if timer is not None:
    timer.cancel()


def within(limits: limits_lib.Limits) -> type[Protocol]:
  """A protocol with these limits, for uvicorn to make one a connection."""
  return type('Protocol', (Protocol,), {'limits': limits})
