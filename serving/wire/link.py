"""How the service asks Redis: many requests share one connection, and none of them waits long."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import hiredis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as TooLate

from serving.errors import ServingError
from serving.wire.connection import redis_faults
from serving.wire.route import Command, Reply
from serving.wire.target import Place

LOOKUP_SECONDS = 0.5  # to connect, and to reply
INCOMPLETE = object()
# How an error reply starts, and what it is called in Python; any other is a ResponseError.
FAULTS: dict[str, type[Exception]] = {
    "NOAUTH": AuthenticationError,
    "WRONGPASS": AuthenticationError,
    "NOPERM": NoPermissionError,
    "LOADING": BusyLoadingError,
    "MASTERDOWN": MasterDownError,
    "CLUSTERDOWN": ClusterDownError,
    "TRYAGAIN": TryAgainError,
    "MOVED": MovedError,
    "ASK": AskError,
}


class Link(Protocol):
    """What reads Redis for a service, whatever stands behind its address: one server, a sentinel's master, a cluster.

    It connects at its first use, and again after a fault.
    """

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the reply of each command, in order; where the server refused one, the error stands in its place.

        So does why a master of a cluster gave no answer, for each of its keys, also within the reply to an `MGET`.
        Commands only read, so that they may be sent again. They go out together and at once, in this order to any one
        server. A command's first key is its second part; the keys of an `MGET` may lie in any slots. Raises
        `StoreUnavailable` where no answer comes in time, and `StoreRefused` for refused credentials.
        """
        ...

    async def close(self) -> None:
        """Close all connections; what waits fails with `StoreUnavailable`."""
        ...


class CountedLink:
    """A link of a service, which counts what fails and gives it this package's names."""

    def __init__(self, link: Link, url: str) -> None:
        self.faults = 0
        self._link, self._url = link, url

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies as the link does; what stands for a refused one goes through `accept`."""
        try:
            return await self._link.ask(commands)
        except ServingError:
            self.faults += 1
            raise

    def accept(self, reply: Reply) -> Reply:
        """Return a reply, or raise `StoreUnavailable` or `StoreRefused` where an error stands for it."""
        if isinstance(reply, Exception):
            raise self.named(reply)
        return reply

    def named(self, fault: Exception) -> ServingError:
        """Return, and count, what stands for a refused reply by this package's names."""
        self.faults += 1
        if isinstance(fault, ServingError):
            return fault
        try:
            with redis_faults(self._url):
                raise fault
        except ServingError as known:
            return known

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()


class ServerLink:
    """The link to one server: TCP, TLS or a unix socket, one connection."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[Wire] | None = None

    async def ask(self, commands: Sequence[Command]) -> list[Reply]:
        """Return the replies; a connection that turns out to be lost is replaced once."""
        with redis_faults(str(self.place)):
            wire = await self._connected()
            try:
                return await wire.ask(commands)
            except NotConnected:  # it may have been lost long ago, unnoticed
                return await (await self._connected()).ask(commands)

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._wire is not None:
            self._wire.close()

    async def _connected(self) -> "Wire":
        if self._wire is not None and self._wire.lost is None:
            return self._wire
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> "Wire":
        """Connect for all who wait: it is known also where all of them have gone by then."""
        self._wire = await connect(self.place)
        return self._wire


class Wire(asyncio.Protocol):
    """One connection: commands of many callers go out in turn, replies come back in the same order."""

    def __init__(self, seconds: float = LOOKUP_SECONDS) -> None:
        self.lost: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=_fault, notEnoughData=INCOMPLETE)
        self._replies: list[Reply] = []
        self._seconds = seconds
        self._waiting: deque[tuple[int, float, asyncio.Future[list[Reply]]]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def ask(self, commands: Sequence[Command]) -> "asyncio.Future[list[Reply]]":
        """Send commands, one or more, and return the future of their replies; it fails with redis' exceptions."""
        replies: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._transport is None or self.lost is not None:
            replies.set_exception(self.lost or NotConnected("not connected yet"))
            return replies
        self._waiting.append((len(commands), self._loop.time() + self._seconds, replies))
        self._transport.write(b"".join([_packed(command) for command in commands]))
        if self._watch is None:
            self._watch = self._loop.call_later(self._seconds, self._look)
        return replies

    def close(self) -> None:
        """Close the connection; what waits fails."""
        self._give_up(NotConnected("the connection was closed"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, and send what is small at once."""
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        self._give_up(NotConnected(f"the connection was lost ({exc or 'closed by the server'})"))

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait, first come, first served."""
        reader, replies = self._reader, self._replies
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not INCOMPLETE:
                replies.append(reply)
                if len(replies) == self._waiting[0][0]:
                    self._answer(replies)
                    replies = self._replies = []
        except (hiredis.ProtocolError, IndexError) as fault:
            self._give_up(NotConnected(f"what answers is no Redis ({fault})"))

    def _answer(self, replies: list[Reply]) -> None:
        _, _, asked = self._waiting.popleft()
        if not asked.done():  # who asked may have gone
            asked.set_result(replies)

    def _look(self) -> None:
        """Give the connection up once its oldest question is too old: what it still says would come too late."""
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][1] - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._look)
        else:
            self._give_up(TooLate(f"no reply within {self._seconds} s"))

    def _give_up(self, fault: Exception) -> None:
        self.lost = self.lost or fault
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            *_, asked = self._waiting.popleft()
            if not asked.done():
                asked.set_exception(self.lost)


async def connect(place: Place, seconds: float = LOOKUP_SECONDS) -> Wire:
    """Return a connection to a server, signed in and with its database chosen.

    Raises redis' `ConnectionError`, its subclass `AuthenticationError`, `TimeoutError`, and `ResponseError` where the
    database is refused.
    """
    try:
        async with asyncio.timeout(seconds):
            wire = await _dialled(place)
    except TimeoutError as fault:
        raise TooLate(f"no connection within {seconds} s") from fault
    except OSError as fault:
        raise NotConnected(str(fault)) from fault
    try:
        await _greet(wire, place)
    except BaseException:
        wire.close()
        raise
    return wire


async def _dialled(place: Place) -> Wire:
    loop = asyncio.get_running_loop()
    if place.path is not None:
        return (await loop.create_unix_connection(Wire, place.path))[1]
    context = place.tls.context if place.tls is not None else None
    return (await loop.create_connection(Wire, place.host, place.port, ssl=context))[1]


async def _greet(wire: Wire, place: Place) -> None:
    greetings: list[Command] = []
    if place.password is not None:
        greetings.append(("AUTH", *([place.username] if place.username else []), place.password))
    if place.db:
        greetings.append(("SELECT", place.db))
    replies = await wire.ask(greetings) if greetings else []
    for refused in (reply for reply in replies if isinstance(reply, Exception)):
        raise refused


# The stub of hiredis takes tuples of one part alone.
_packed = cast("Callable[[Command], bytes]", hiredis.pack_command)


def _fault(message: str) -> Exception:
    """Return what redis-py would; to it, the text of where else to go is all but the first word."""
    code, _, rest = message.partition(" ")
    kind = FAULTS.get(code, ResponseError)
    return kind(rest if issubclass(kind, AskError) else message)
