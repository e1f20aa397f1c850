"""The short way of plain lookups: from the bytes of a request to those of its answer, without a framework.

What is unusual in any way is left to the application, which answers the same: tests compare the two.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from time import perf_counter, time
from typing import NamedTuple, Protocol
from urllib.parse import unquote_to_bytes
from wsgiref.handlers import format_date_time

from serving.apikeys import Caller
from serving.errors import ServingError
from serving.head import Limits
from serving.question import Found, Plan, Question
from serving.web.intake import MOST_BODY_BYTES, MOST_HEAD_BYTES
from serving.web.journal import Ended
from serving.web.problems import problem_of, rendered
from serving.web.service import Service
from serving.web.template import Template, Told
from serving.web.traits import Traits, TraitsCache

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

    same: "Same | None"  # of its last lookup, and likely of the next one


class Same(NamedTuple):
    """What plain lookups of one client have in common: all but the key."""

    before: bytes  # the bytes of the request up to the key
    after: bytes  # and from its end
    past: int  # where the key begins
    end: int  # and where it ends, from the end of the request
    plan: Plan
    callers: Mapping[bytes, Caller]


Route = tuple[str, str]  # method and route
Asker = tuple[Front, str | None, float]  # its connection, the id that it gave, and when it asked


class Quick:
    """The plain lookups of one process."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._plans = service.reader.heads.plans
        self._keyring, self._journal = service.keyring, service.journal
        self._templates: dict[str, Template] = {}
        self._crowds: dict[str, Crowd] = {}
        self._traits = TraitsCache(service.keyring)

    def take(self, front: Front, data: bytes) -> int:
        """Begin to answer the request that `data` starts with, and return how many bytes it takes.

        `UNUSUAL` is no such request. What is below zero might become one: `INCOMPLETE` with any more bytes, another
        number with so many in all.
        """
        if front.same is not None and self._again(front, front.same, data):
            return len(data)
        if data.startswith(GET):
            return self._one(front, data)
        if data.startswith(POST):
            return self._many(front, data)
        return UNUSUAL

    def _again(self, front: Front, same: Same, data: bytes) -> bool:
        """Take a request that differs from an earlier one of its connection in the key alone, if it does.

        No key has what ends a target, a line or a request: so it is one request, whole, and with the same head.
        """
        before, after, past, end, plan, callers = same
        quoted = data[past:end]
        if not (data.startswith(before) and data.endswith(after) and UNQUOTED.fullmatch(quoted)):
            return False
        head = plan.head
        if self._plans.get(head.pipeline) is not plan or self._keyring.callers is not callers:
            return False
        if len(quoted) > head.limits.key_bytes:
            return False
        self._crowd(plan).add(quoted.decode("ascii"), (front, None, perf_counter()))
        return True

    def template(self, plan: Plan) -> Template:
        """Return what writes the answers of a plan."""
        template = self._templates.get(plan.head.pipeline)
        if template is None or template.plan is not plan:
            template = self._templates[plan.head.pipeline] = Template(plan, self._journal)
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
        if traits.request_id is None:
            past = len(GET) + len(pipeline) + 1
            front.same = self._same(data[:past], data[past + len(quoted) : end + 4], plan)
        self._crowd(plan).add(key, (front, traits.request_id, perf_counter()))
        return end + 4

    def _same(self, before: bytes, after: bytes, plan: Plan) -> Same:
        return Same(before, after, len(before), -len(after), plan, self._keyring.callers)

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
        if plan is None or traits is None or self._keyring.path is None:
            return plan
        caller = self._keyring.callers.get(traits.digest) if traits.digest else None
        return plan if caller is not None and caller.may_read(plan.head.pipeline) else None

    def send(self, askers: Iterable[Asker], route: Route, told: Iterable[Told], keys: int) -> None:
        """Send each asker, who asked for so many keys, what is told: a text, which is ASCII, or a problem."""
        now, ended, ids, seconds = time(), perf_counter(), list[str](), list[float]()
        start, new_id = _start(int(now)), self._journal.request_id
        try:
            for asker, body in zip(askers, told, strict=True):
                if not isinstance(body, str):
                    self.refuse(asker, route, body, keys)
                    continue
                front, request_id, started = asker
                ids.append(request_id := request_id or new_id())
                seconds.append(ended - started)
                first = _start_of_last(int(now)) if front.last else start
                rest = f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
                front.reply(f"{first}{rest}".encode("ascii"))
        finally:
            if ids:
                self._journal.note(Ended(now, *route, 200, keys, ids, seconds))

    def refuse(self, asker: Asker, route: Route, fault: ServingError, keys: int) -> None:
        """Send the problem document that the application would send."""
        front, request_id, started = asker
        now, request_id = time(), request_id or self._journal.request_id()
        status, headers, body = rendered(problem_of(fault, request_id))
        told = {"Date": format_date_time(now), "X-Request-ID": request_id, "Content-Length": str(len(body)), **headers}
        told |= {"Connection": "close"} if front.last else {}
        lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in told.items())
        front.reply(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("ascii") + body)
        self._journal.note(Ended(now, *route, status, keys, [request_id], [perf_counter() - started]))


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
        self._quick.send(self._left, ONE, told, 1)


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
        self._quick.send([self._asker], MANY, [template.body(self._keys, told)], len(self._keys))


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
