"""The process of the lookup service: listens, gives each connection its time, and ends without losing a request."""

import asyncio
import errno
import logging
import signal
import socket
from contextlib import suppress

from starlette.types import ASGIApp

from serving.errors import SettingsError
from serving.sparing import SparingLog
from serving.web.front import HttpConnection
from serving.web.quick import Quick
from serving.web.service import Service

BACKLOG = 1024
SWEEP_SECONDS = 0.2
STEP_SECONDS = 0.02
STOP_SECONDS = 10.0  # what has come and is being answered may take so long after the signal to stop
MOST_CONNECTIONS = 4096  # each may hold the memory of a request
PAUSE_SECONDS = 1.0  # where there are as many, or the system has no more to give
EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))  # the system, or what it gives us
LOG = logging.getLogger(__name__)
SPARING = SparingLog(LOG)


class Server:
    """One process of the service, on a socket that listens."""

    def __init__(self, service: Service, app: ASGIApp, listener: socket.socket) -> None:
        self.app, self.journal, self.quick = app, service.journal, Quick(service)
        self.connections: set[HttpConnection] = set()
        self.stopping = False
        self.stop = asyncio.Event()
        self._keyring = service.keyring
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()

    async def serve(self) -> None:
        """Serve until `stop` is set, SIGTERM or SIGINT; then answer all that came before the listener was closed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.stop.set)
        self._listener.setblocking(False)  # noqa: FBT003  reason: a method of Python's
        self._loop.add_reader(self._listener, self._accept)
        sweeping = self._loop.create_task(self._sweep())
        await self.stop.wait()
        await self._end()
        sweeping.cancel()

    def _accept(self) -> bool:
        """Take what connections the system has ready, and return whether those were all; too many wait in its queue."""
        for _ in range(BACKLOG):
            if not self.stopping and len(self.connections) + len(self._opening) >= MOST_CONNECTIONS:
                self._rest(f"there are {MOST_CONNECTIONS}")
                return False
            try:
                self._open(self._listener.accept()[0])
            except BlockingIOError:
                return True
            except OSError as fault:
                if fault.errno in EXHAUSTED:
                    self._rest(str(fault))
                    return False
                # any other is of a client that has gone
        return False

    def _rest(self, why: str) -> None:
        SPARING.tell("connections cannot be taken for a moment", why)
        self._loop.remove_reader(self._listener)
        self._loop.call_later(PAUSE_SECONDS, self._again)

    def _again(self) -> None:
        if not self.stopping:
            self._loop.add_reader(self._listener, self._accept)

    def _open(self, opened: socket.socket) -> None:
        opened.setblocking(False)  # noqa: FBT003  reason: a method of Python's
        opening = self._loop.connect_accepted_socket(lambda: HttpConnection(self), opened)
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self._look()
            except Exception:  # the next turn may do better
                LOG.exception("time limits were not looked at")

    def _look(self) -> None:
        now = self._loop.time()
        for connection in list(self.connections):
            connection.expire(now)
        self._keyring.refresh()
        self.journal.flush()

    async def _end(self) -> None:
        self.stopping = True
        self._loop.remove_reader(self._listener)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while not self._accept():
                    await self._settle()  # those that end make room for those that wait
                self._listener.close()
                await self._settle()
                while self.connections:
                    await asyncio.sleep(STEP_SECONDS)
        self._listener.close()

    async def _settle(self) -> None:
        """Begin all requests that have come, and end the connections without one."""
        await asyncio.gather(*self._opening, return_exceptions=True)
        # A turn of the loop reads what the system holds for us; the first may have begun before the listener closed.
        for _ in range(3):
            await asyncio.sleep(0)
        for connection in list(self.connections):
            connection.stop()
        await asyncio.sleep(STEP_SECONDS)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, or raise `SettingsError`."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as fault:
        raise SettingsError(
            f"SCORELINE_HOST, SCORELINE_PORT: cannot listen on {host}, port {port} ({fault}): choose what is free"
        ) from fault
