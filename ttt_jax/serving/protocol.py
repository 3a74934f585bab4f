"""A connection that may not dawdle: time limits that uvicorn itself has none of."""

import asyncio

import h11
from uvicorn.protocols.http import h11_impl

from ttt_jax.serving import limits as limits_lib

_LATE = b'HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n'


class Protocol(h11_impl.H11Protocol):
  """Drops who does not send a head, or does not read what is sent, in time."""

  limits: limits_lib.Limits
  _head: asyncio.TimerHandle | None = None
  _stall: asyncio.TimerHandle | None = None

  def connection_made(self, transport) -> None:
    super().connection_made(transport)
    self._await_head()

  def data_received(self, data: bytes) -> None:
    super().data_received(data)
    if self.conn.their_state is not h11.IDLE:
      self._head = _stopped(self._head)
    elif self._head is None and not self.transport.is_closing():
      self._await_head()

  def send_400_response(self, msg: str) -> None:
    """Ends what is under way too: nothing can be answered behind it."""
    super().send_400_response(msg)
    if self.cycle is not None:
      self.cycle.disconnected = True
      self.cycle.message_event.set()

  def connection_lost(self, exc) -> None:
    self._head, self._stall = _stopped(self._head), _stopped(self._stall)
    super().connection_lost(exc)

  def pause_writing(self) -> None:
    super().pause_writing()
    self._stall = self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

  def resume_writing(self) -> None:
    self._stall = _stopped(self._stall)
    super().resume_writing()

  def on_response_complete(self) -> None:
    super().on_response_complete()
    # The end of an answer may be left in the buffer of one who reads no more.
    self.loop.call_later(self.limits.stall_seconds, self._finish)

  def _finish(self) -> None:
    if self.cycle.response_complete and self.transport.get_write_buffer_size():
      self.transport.abort()

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
