"""One connection of a client: which of its requests goes which way, one after the other, each within its time."""

import asyncio
from http import HTTPStatus
from typing import Protocol, cast

from starlette.types import ASGIApp

from serving.web.exchange import Exchange
from serving.web.intake import ANSWER_SECONDS
from serving.web.quick import UNUSUAL, Quick, Same

IDLE_SECONDS = 75.0
REQUEST_SECONDS = 10.0  # from a request's first byte to its last
TAKE_SECONDS = 10.0  # a client has to take an answer
LINGER_SECONDS = 2.0  # what a client still sends is read and dropped, or its system would drop our answer
MOST_HELD = 2**16  # bytes behind a request that is being answered
TOO_SLOW = "the request did not come whole in time: send it at once"


class Host(Protocol):
    """What the connections of a process share."""

    quick: Quick
    app: ASGIApp
    stopping: bool
    connections: set["HttpConnection"]


class HttpConnection(asyncio.Protocol):
    """Takes requests one by one: a plain lookup goes the short way, any other the long one."""

    def __init__(self, host: Host) -> None:
        self._host, self._loop = host, asyncio.get_running_loop()
        self._take = host.quick.take
        self.same: Same | None = None
        # The start of a request, or requests behind the one that is being answered.
        self._held: bytes | bytearray = b""
        self._needed = 1  # bytes, before what is held is looked at again
        self._quick = False  # whether a lookup is under way
        self._exchange: Exchange | None = None
        self._ended = False  # by the client, which still reads
        self._lingering = False
        self._paused = False
        self._begun = False  # a request, of which more is to come
        self._overdue = False
        self._choked = False  # the client takes its answer slowly
        self._drained = asyncio.Event()
        self._drained.set()
        self._deadline = self._loop.time() + IDLE_SECONDS

    @property
    def last(self) -> bool:
        """Whether the connection ends with the answer that is given now."""
        return (self._host.stopping or self._ended) and not self._held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._host.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        self._host.connections.discard(self)
        self._drained.set()
        if self._exchange is not None:
            self._exchange.lost()

    def data_received(self, data: bytes) -> None:
        """Take a piece of what the client sends."""
        if self._lingering:
            return
        if self._quick or (self._choked and self._exchange is None):
            self._hold(data)
        elif self._exchange is not None:
            if self._exchange.answering:
                self._hold(data)
            else:
                self._exchange.feed(data)
        elif self._held:
            self._more(data)
        else:
            self._advance(data)

    def eof_received(self) -> bool:
        """Answer what came whole to a client that sends no more."""
        self._ended = True
        return self._answering() or (bool(self._held) and not self._begun)

    def pause_writing(self) -> None:
        """Wait for a client that takes its answer slowly."""
        self._choked = True
        self._drained.clear()
        self._deadline = self._loop.time() + TAKE_SECONDS

    def resume_writing(self) -> None:
        """Go on."""
        self._choked = False
        self._drained.set()
        if not self._quick and self._exchange is None:  # else what is under way goes on by itself
            self._next()

    def reply(self, answer: bytes) -> None:
        """Send the whole answer of a plain lookup."""
        self._quick = False
        if not self._transport.is_closing():
            self._transport.write(answer)
        if self._held or self._choked or self._ended or self._host.stopping:
            self._next()
        else:
            self._deadline = self._loop.time() + IDLE_SECONDS

    def write(self, data: bytes) -> None:
        """Send a part of an answer; nothing to a client that has gone."""
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        """Return once the client has taken most of what was sent, or has gone."""
        await self._drained.wait()

    def done(self, rest: bytes | None) -> None:
        """Go on with what came after a request, or end the connection where that is None."""
        self._exchange = None
        if rest is None:
            self._linger()
        else:
            self._held = rest + self._held
            self._next()

    def expire(self, now: float) -> None:
        """End what takes too long, by the event loop's time."""
        if now < self._deadline:
            return
        if self._lingering or self._overdue or self._choked:
            self._transport.abort()
        elif self._answering():  # it has limits of its own, which come first
            self._overdue, self._deadline = True, now + 2 * ANSWER_SECONDS
        elif self._exchange is None and not self._held:
            self._transport.close()
        else:
            self._late()

    def stop(self) -> None:
        """End the connection at once where no request has come or begun to come, else with its answer."""
        if not (self._answering() or self._held or self._exchange or self._lingering):
            self._transport.close()

    def _answering(self) -> bool:
        return self._quick or (self._exchange is not None and self._exchange.answering)

    def _hold(self, data: bytes) -> None:
        self._held += data
        if len(self._held) > MOST_HELD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _more(self, data: bytes) -> None:
        """Take a further piece of a request; all are joined but once, however small they are."""
        self._held += data
        if len(self._held) >= self._needed:
            self._advance(bytes(self._held))

    def _advance(self, data: bytes) -> None:
        """Begin to answer the request that `data` starts with, or wait for the rest of it."""
        taken = self._take(self, data)
        if taken > 0:
            self._quick, self._begun, self._overdue = True, False, False
            self._held = data[taken:] if len(data) > taken else b""
            return
        if not self._begun:
            self._begun, self._overdue, self._deadline = True, False, self._loop.time() + REQUEST_SECONDS
        if taken == UNUSUAL:
            self._long(data)
        else:
            self._held, self._needed = bytearray(data), -taken

    def _long(self, data: bytes) -> None:
        self._held = b""
        self._exchange = Exchange(self, self._host.app, self._host.quick.service)
        self._exchange.feed(data)

    def _next(self) -> None:
        """Go on after an answer."""
        self._begun, self._needed = False, 1
        if self._transport.is_closing() or self._choked:
            return
        if self._held:
            self._loop.call_soon(self._resume)
        elif self.last:
            self._transport.close()
        else:
            self._deadline = self._loop.time() + IDLE_SECONDS

    def _resume(self) -> None:
        """Take the request that waited behind another one."""
        if self._answering() or self._begun or not self._held:  # more of it has come and was taken
            return
        self._advance(bytes(self._held))
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._ended and not self._answering() and not self._lingering:  # the rest will never come
            self._transport.close()

    def _late(self) -> None:
        if self._exchange is None:
            self._long(bytes(self._held))
        if self._exchange is not None and not self._exchange.answering:
            self._exchange.refuse(HTTPStatus.REQUEST_TIMEOUT, TOO_SLOW)

    def _linger(self) -> None:
        """End the connection once the client has read its last answer."""
        if self._transport.is_closing():
            return
        self._held = b""
        if self._ended or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingering, self._deadline = True, self._loop.time() + LINGER_SECONDS
        self._transport.write_eof()
        if self._paused:
            self._transport.resume_reading()
