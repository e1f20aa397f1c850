"""What of a request is let in: from whom, under which id, the key in the path as it was meant, a bounded body."""

import asyncio
import logging
import re
from collections.abc import Iterable
from time import perf_counter, time
from urllib.parse import unquote_to_bytes

from fastapi import Request
from starlette.convertors import Convertor
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.apikeys import ANYONE, Caller, KeyRing
from serving.errors import CallerUnknown, KeyRefused
from serving.sparing import SparingLog
from serving.web.journal import NO_ROUTE, Ended, Journal, known
from serving.web.problems import plain_problem, problem_of, rendered

MOST_HEAD_BYTES = 32 * 2**10
MOST_BODY_BYTES = 2 * 2**20  # 1,000 keys of 256 bytes, escaped in JSON; or more and shorter ones, where allowed
ANSWER_SECONDS = 10.0
TOO_LATE = "the answer took too long: try again"
LOG = SparingLog(logging.getLogger(__name__))
GUARDED = "/v1/"  # health, metrics and documents stay open: they show no score and no key
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:+=@/-]{1,128}")  # what needs no escaping anywhere

Headers = Iterable[tuple[bytes, bytes]]


class KeyConvertor(Convertor[str]):
    """Starlette's own `path` ends at a line break, and so would answer for another key."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the key as it came."""
        return value

    def to_string(self, value: str) -> str:
        """Return the key as it is."""
        return value


def require_utf8(request: Request) -> None:
    """The server reads bytes that are no UTF-8 as U+FFFD; they must not be answered for as another key."""
    try:
        unquote_to_bytes(request.scope["raw_path"]).decode()
    except UnicodeDecodeError as fault:
        raise KeyRefused("the key in the path is not UTF-8: percent-encode its UTF-8 bytes") from fault


def presented_key(headers: Headers) -> str | None:
    """Return the API key of a request, or None for none and for what contradicts it; names are in lower case."""
    found, keys = dict(headers), set()
    if (authorization := found.get(b"authorization")) is not None:
        scheme, _, key = authorization.partition(b" ")
        keys.add(key.strip() if scheme.lower() == b"bearer" else b"")
    if b"x-api-key" in found:
        keys.add(found[b"x-api-key"].strip())
    return keys.pop().decode(errors="surrogateescape") if len(keys) == 1 else None


def presented_id(headers: Headers) -> str | None:
    """Return the id that a caller gave to its request, or None where that is none that we would write anywhere."""
    given = dict(headers).get(b"x-request-id", b"")
    return given.decode() if REQUEST_ID.fullmatch(given) else None


class Noted:
    """ASGI middleware: every request has an id, which its answer shows, and is noted in the journal."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self.app = app
        self.journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record the status that comes back."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = perf_counter(), 500
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = presented_id(scope["headers"]) or self.journal.request_id()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path_format", NO_ROUTE)
            seconds = perf_counter() - started
            method, keys = known(scope["method"]), state.get("keys", 0)
            self.journal.note(Ended(time(), method, route, status, keys, [request_id], [seconds]))


def barred(scope: Scope, keyring: KeyRing) -> bool:
    """Return whether no more of a request than its head need be read: who asks may not, or what is open has no body."""
    if not scope["path"].startswith(GUARDED):
        return True
    try:
        keyring.caller(presented_key(scope["headers"]))
    except CallerUnknown:
        return True
    return False


class Guarded:
    """ASGI middleware: what shows scores is for callers with an API key."""

    def __init__(self, app: ASGIApp, keyring: KeyRing) -> None:
        self.app = app
        self.keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or refuse it."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                state["caller"] = _caller(scope, self.keyring)
            except CallerUnknown as fault:
                status, headers, body = rendered(problem_of(fault, state.get("request_id")))
                return await Response(body, status, headers)(scope, receive, send)
        return await self.app(scope, receive, send)


def _caller(scope: Scope, keyring: KeyRing) -> Caller:
    return keyring.caller(presented_key(scope["headers"])) if scope["path"].startswith(GUARDED) else ANYONE


class Timely:
    """ASGI middleware: what is not answered in `ANSWER_SECONDS` is a problem, unless its answer has begun."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer it where nothing else does in time."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app(scope, receive, watched)
        except TimeoutError:
            if begun:
                raise
            request_id = scope["state"].get("request_id", "")
            LOG.tell("AnswerTooLate", f"nothing in {ANSWER_SECONDS} s for {scope['path'][:128]!r}", request_id)
            status, headers, body = rendered(plain_problem(503, TOO_LATE, request_id))
            await Response(body, status, headers)(scope, receive, send)
