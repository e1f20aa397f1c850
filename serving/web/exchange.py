"""One request in all that HTTP/1.1 allows, answered by the application: the long way."""

import asyncio
import logging
import re
from http import HTTPStatus
from time import perf_counter, time
from typing import Protocol
from urllib.parse import unquote
from wsgiref.handlers import format_date_time

import h11
from starlette.types import ASGIApp, Message, Scope

from serving.sparing import SparingLog
from serving.web.intake import MOST_BODY_BYTES, MOST_HEAD_BYTES, barred, presented_id
from serving.web.journal import NO_ROUTE, Ended, known
from serving.web.problems import OUR_FAULT, plain_problem, rendered
from serving.web.service import Service

LOG = SparingLog(logging.getLogger(__name__))
MOST_PIECES = 4096  # of a body; each costs as much time as a thousand bytes
TOO_LONG = f"a body of more than {MOST_BODY_BYTES} bytes: send fewer keys"
TOO_MANY = f"a body in more than {MOST_PIECES} pieces: send larger chunks, or none"
# What stands before us may have ended the body at the other one (RFC 9112, 6.1).
TWO_LENGTHS = "a body with both Content-Length and Transfer-Encoding: send one of them"
ABSOLUTE = re.compile(rb"^https?://[^/?]*", re.IGNORECASE)
TOO_LARGE = f"a request line and headers of more than {MOST_HEAD_BYTES} bytes: send fewer or shorter ones"


class Peer(Protocol):
    """The connection of an exchange."""

    @property
    def last(self) -> bool:
        """Whether the connection is to end with this answer."""
        ...

    def write(self, data: bytes) -> None:
        """Send a part of the answer."""
        ...

    async def drained(self) -> None:
        """Return once the client has taken most of what was sent."""
        ...

    def done(self, rest: bytes | None) -> None:
        """Go on with what came after the request, or end the connection where that is None."""
        ...


class Exchange:
    """Reads one request, runs the application, and writes its answer; where nobody will read a body, its head alone."""

    def __init__(self, peer: Peer, app: ASGIApp, service: Service) -> None:
        self.answering = False
        self._peer, self._app = peer, app
        self._journal, self._keyring = service.journal, service.keyring
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        self._request: h11.Request | None = None
        self._scope: Scope = {}
        self._barred = False
        self._body = bytearray()
        self._pieces = 0
        self._started = perf_counter()
        self._task: asyncio.Task[None] | None = None
        self._taken = False  # the body, by the application
        self._gone = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Take bytes of the client."""
        try:
            self._http.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as fault:
            status = fault.error_status_hint
            large = status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.refuse(status, TOO_LARGE if large else f"this is no HTTP/1.1 ({fault}): send HTTP/1.1")

    def lost(self) -> None:
        """Learn that the client is gone; what has begun is finished all the same, and nobody reads it."""
        self._gone.set()

    def refuse(self, status: int, detail: str) -> None:
        """Answer without the application, and end the connection."""
        self.answering = True
        headers = self._request.headers if self._request else []
        request_id = presented_id(headers) or self._journal.request_id()
        method = known(self._request.method.decode() if self._request else "")
        self._peer.write(_refusal(status, detail, request_id))
        seconds = perf_counter() - self._started
        self._journal.note(Ended(time(), method, NO_ROUTE, status, 0, [request_id], [seconds]))
        self._peer.done(None)

    def _read(self) -> None:
        while not self.answering:
            match event := self._http.next_event():
                case h11.Request():
                    self._begin(event)
                case h11.EndOfMessage():
                    self._answer()
                case _ if self._barred:  # there is a body, which nobody will read
                    self._answer()
                case h11.Data():
                    self._take(event.data)
                case _:
                    break
        if self._http.they_are_waiting_for_100_continue and not self.answering:
            self._write(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def _begin(self, request: h11.Request) -> None:
        self._request, self._scope = request, _scope(request)
        self._barred = barred(self._scope, self._keyring)
        headers = dict(request.headers)
        size = len(request.target) + sum(len(name) + len(value) for name, value in request.headers)
        if size > MOST_HEAD_BYTES:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LARGE)
        elif {b"content-length", b"transfer-encoding"} <= headers.keys():
            self.refuse(HTTPStatus.BAD_REQUEST, TWO_LENGTHS)
        elif not self._barred and int(headers.get(b"content-length", 0)) > MOST_BODY_BYTES:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LONG)

    def _take(self, piece: bytes) -> None:
        self._body += piece
        self._pieces += 1
        if self._pieces > MOST_PIECES:
            self.refuse(HTTPStatus.BAD_REQUEST, TOO_MANY)
        elif len(self._body) > MOST_BODY_BYTES:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LONG)

    def _answer(self) -> None:
        self.answering = True
        self._task = asyncio.get_running_loop().create_task(self._run(self._scope))

    async def _run(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as fault:  # noqa: BLE001  reason: the application has answered what it could
            request_id = scope["state"].get("request_id", "")
            LOG.tell(type(fault).__name__, "a request failed", request_id, fault)
            if self._http.our_state is h11.SEND_RESPONSE:
                self._peer.write(_refusal(500, OUR_FAULT, request_id))
        whole = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        self._peer.done(self._http.trailing_data[0] if whole else None)

    async def _receive(self) -> Message:
        if not self._taken:
            self._taken = True
            return {"type": "http.request", "body": bytes(self._body), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start(message)
            return
        if (body := message.get("body", b"")) and self._sends_a_body():
            self._write(h11.Data(data=body))
        if not message.get("more_body", False):
            self._write(h11.EndOfMessage())
        await self._peer.drained()

    def _start(self, message: Message) -> None:
        headers = [(b"date", format_date_time(time()).encode()), *message.get("headers", ())]
        unread = self._http.their_state is h11.SEND_BODY
        if unread or (self._peer.last and not self._http.trailing_data[0]):
            headers.append((b"connection", b"close"))
        status = message["status"]
        self._write(h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode()))

    def _sends_a_body(self) -> bool:
        return self._request is not None and self._request.method != b"HEAD"

    def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._peer.write(data)


def _refusal(status: int, detail: str, request_id: str) -> bytes:
    _, told, body = rendered(plain_problem(status, detail, request_id))
    told |= {"X-Request-ID": request_id, "Content-Length": str(len(body)), "Connection": "close"}
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode() + body


def _scope(request: h11.Request) -> Scope:
    target = ABSOLUTE.sub(b"", request.target, count=1)
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode(),
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
        "state": {},
    }
