"""The short way of plain lookups: from the bytes of a request to those of its answer, without a framework.

What is unusual in any way is left to the application, which answers the same: tests compare the two.
"""

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter, time
from typing import Protocol
from urllib.parse import unquote_to_bytes
from wsgiref.handlers import format_date_time

from serving.errors import ServingError
from serving.head import Limits
from serving.intake import MOST_BODY_BYTES, MOST_HEAD_BYTES
from serving.problems import problem_of, rendered
from serving.question import Found, Plan, Question
from serving.service import Service
from serving.template import Template
from serving.traits import Traits, TraitsCache

GET, POST = b"GET /v1/scores/", b"POST /v1/scores/"
ONE, MANY = ("GET", "/v1/scores/{pipeline}/{key}"), ("POST", "/v1/scores/{pipeline}")
VERSION = b" HTTP/1.1"
TARGET = re.compile(rb"[\x21-\x3e\x40-\x7e]+")  # without a query
UNQUOTED = re.compile(rb"[\x21-\x24\x26-\x3e\x40-\x7e]+")  # and without anything percent-encoded

UNUSUAL, INCOMPLETE = 0, -1


class Front(Protocol):
    """The connection that a request came by."""

    def reply(self, answer: bytes) -> None:
        """Send a whole answer; the next request may follow."""
        ...

    @property
    def last(self) -> bool:
        """Whether the connection is closed after this answer."""
        ...


Route = tuple[str, str]  # method and route
Asker = tuple[Front, str | None, float]  # its connection, the id that it gave, and when it asked


class Quick:
    """The plain lookups of one process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._plans = service.reader.heads.plans
        self._templates: dict[str, Template] = {}
        self._crowds: dict[str, Crowd] = {}
        self._traits = TraitsCache(service.keyring)

    def take(self, front: Front, data: bytes) -> int:
        """Begin to answer the request that `data` starts with, and return how many bytes it takes.

        `UNUSUAL` is no such request. What is below zero might become one: `INCOMPLETE` with any more bytes, another
        number with so many in all.
        """
        if data.startswith(GET):
            return self._one(front, data)
        if data.startswith(POST):
            return self._many(front, data)
        return UNUSUAL

    def template(self, plan: Plan) -> Template:
        """Return what writes the answers of a plan."""
        template = self._templates.get(plan.head.pipeline)
        if template is None or template.plan is not plan:
            template = self._templates[plan.head.pipeline] = Template(plan, self.service.journal)
        return template

    def _one(self, front: Front, data: bytes) -> int:
        end = data.find(b"\r\n\r\n", 0, MOST_HEAD_BYTES)
        if end < 0:
            return INCOMPLETE if len(data) < MOST_HEAD_BYTES else UNUSUAL
        target, traits = self._parts(data, len(GET), end)
        pipeline, _, quoted = target.partition(b"/")
        plan = self._plan(pipeline, traits)
        if plan is None or traits is None or traits.length:
            return UNUSUAL
        key = _key(quoted, plan.head.limits)
        if key is None:
            return UNUSUAL
        self._crowd(plan).add(key, (front, traits.request_id, perf_counter()))
        return end + 4

    def _many(self, front: Front, data: bytes) -> int:
        end = data.find(b"\r\n\r\n", 0, MOST_HEAD_BYTES)
        if end < 0:
            return INCOMPLETE if len(data) < MOST_HEAD_BYTES else UNUSUAL
        target, traits = self._parts(data, len(POST), end)
        plan = self._plan(target, traits)
        if plan is None or traits is None or not traits.json or traits.length > MOST_BODY_BYTES:
            return UNUSUAL
        start = end + 4
        past = start + traits.length
        if len(data) < past:
            return -past
        keys = _keys(data[start:past], plan.head.limits)
        if keys is None:
            return UNUSUAL
        asked = Many(self, (front, traits.request_id, perf_counter()), keys)
        self.service.reader.ask(Question(plan, keys, asked.answer))
        return past

    def _crowd(self, plan: Plan) -> "Crowd":
        """Return the crowd of a plan that others can still join."""
        crowd = self._crowds.get(plan.head.pipeline)
        if crowd is None or crowd.question.begun or crowd.question.plan is not plan:
            crowd = self._crowds[plan.head.pipeline] = Crowd(self, plan)
            self.service.reader.ask(crowd.question)
        return crowd

    def _parts(self, data: bytes, start: int, end: int) -> tuple[bytes, Traits | None]:
        """Return what of the target is after `start`, and the traits; None for those of another version of HTTP."""
        line = data.find(b"\r\n", start, end + 2)
        past = line - len(VERSION)
        if data[past:line] != VERSION:
            return b"", None
        return data[start:past], self._traits.of(data[line + 2 : end + 2])

    def _plan(self, pipeline: bytes, traits: Traits | None) -> Plan | None:
        """Return the kept plan of a pipeline, unless this caller may not read it."""
        plan = self._plans.get(pipeline.decode("latin-1"))
        keyring = self.service.keyring
        if plan is None or traits is None or keyring.path is None:
            return plan
        caller = keyring.callers.get(traits.digest) if traits.digest else None
        return plan if caller is not None and caller.may_read(plan.head.pipeline) else None

    def send(self, asker: Asker, route: Route, body: str, keys: int) -> None:
        """Send an answer whose text is ASCII."""
        front, request_id, started = asker
        now, request_id = time(), request_id or self.service.journal.request_id()
        start = _start_of_last(int(now)) if front.last else _start(int(now))
        front.reply(f"{start}x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode("ascii"))
        self.service.journal.note((now, request_id, *route, 200, perf_counter() - started, keys))

    def refuse(self, asker: Asker, route: Route, fault: ServingError, keys: int) -> None:
        """Send the problem document that the application would send."""
        front, request_id, started = asker
        now, request_id = time(), request_id or self.service.journal.request_id()
        status, headers, body = rendered(problem_of(fault, request_id))
        told = {"Date": format_date_time(now), "X-Request-ID": request_id, "Content-Length": str(len(body)), **headers}
        told |= {"Connection": "close"} if front.last else {}
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in told.items())
        front.reply(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("ascii") + body)
        self.service.journal.note((now, request_id, *route, status, perf_counter() - started, keys))


class Crowd:
    """Lookups of one key each that come in one turn of the event loop: one question asks for all of them."""

    def __init__(self, quick: Quick, plan: Plan) -> None:
        self._quick, self._keys, self._askers = quick, list[str](), list[Asker]()
        self._left = iter(self._askers)  # who is answered leaves: after a fault in between, nobody is answered twice
        self.question = Question(plan, self._keys, self.answer)

    def add(self, key: str, asker: Asker) -> None:
        """Ask for one more key."""
        self._keys.append(key)
        self._askers.append(asker)

    def answer(self, plan: Plan, found: list[Found] | ServingError) -> None:
        """Write all answers."""
        if isinstance(found, ServingError):
            for asker in self._left:
                self._quick.refuse(asker, ONE, found, 1)
            return
        template = self._quick.template(plan)
        told = template.told(self._keys, found, self._quick.service.clock.microseconds())
        for asker, one in zip(self._left, told, strict=True):
            if isinstance(one, str):
                self._quick.send(asker, ONE, one, 1)
            else:
                self._quick.refuse(asker, ONE, one, 1)


class Many:
    """A lookup of several keys."""

    def __init__(self, quick: Quick, asker: Asker, keys: Sequence[str]) -> None:
        self._quick, self._asker, self._keys = quick, asker, keys

    def answer(self, plan: Plan, found: list[Found] | ServingError) -> None:
        """Write the answer."""
        if isinstance(found, ServingError):
            self._quick.refuse(self._asker, MANY, found, len(self._keys))
            return
        template = self._quick.template(plan)
        told = template.told(self._keys, found, self._quick.service.clock.microseconds())
        self._quick.send(self._asker, MANY, template.body(self._keys, told), len(self._keys))


def _key(quoted: bytes, limits: Limits) -> str | None:
    """Return the key that stands in a target, unless it is unusual."""
    if UNQUOTED.fullmatch(quoted):
        return quoted.decode("ascii") if len(quoted) <= limits.key_bytes else None
    if not TARGET.fullmatch(quoted):
        return None
    key = unquote_to_bytes(quoted)
    if not 1 <= len(key) <= limits.key_bytes:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _keys(body: bytes, limits: Limits) -> list[str] | None:
    """Return the keys of a body that has nothing else, and nothing unusual."""
    try:
        asked = json.loads(body.decode())
        if type(asked) is not dict or list(asked) != ["keys"]:
            return None
        keys = asked["keys"]
        if type(keys) is not list or not 1 <= len(keys) <= limits.batch or set(map(type, keys)) != {str}:
            return None
        sizes = list(map(len, map(str.encode, keys)))
    except (ValueError, RecursionError):  # also for what is no UTF-8, and half characters
        return None
    return keys if min(sizes) >= 1 and max(sizes) <= limits.key_bytes else None


@lru_cache(maxsize=4)
def _start(since_1970: int) -> str:
    return f"HTTP/1.1 200 OK\r\ndate: {format_date_time(since_1970)}\r\ncontent-type: application/json\r\n"


@lru_cache(maxsize=4)
def _start_of_last(since_1970: int) -> str:
    return f"{_start(since_1970)}connection: close\r\n"
