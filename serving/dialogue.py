"""What a client of the lookup service asks, how often, and what it makes of the answers; others carry them."""

import random
import threading
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain, islice
from time import monotonic
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from serving.answers import Batch, Keys, Missing, Pipelines, PipelineStatus, Problem, Score, Wishes
from serving.errors import ServiceError, ServiceUnreachable
from serving.head import Limits

A = TypeVar("A", bound=BaseModel)
T = TypeVar("T")

TRIES = 3
LEAST_SECONDS = 0.001
PAUSE_SECONDS = 0.1  # about so long before the first repetition, twice that before the second


@dataclass(frozen=True)
class Ask:
    """A request to carry to the service within some seconds, those to read the answer included."""

    method: str
    path: str
    body: str | None
    seconds: float


# Steps are requests and pauses in seconds; what is sent back is the answer, or why there is none; the end is a value.
Dialogue = Generator[Ask | float, httpx.Response | Exception | None, T]


class RetryBudget:
    """Allows one repetition for `every` ten requests, `most` ten in a row: an outage is not made worse by us.

    One budget may serve several clients and threads.
    """

    def __init__(self, every: int = 10, most: int = 10) -> None:
        self._every, self._most = every, most * every
        self._left = self._most  # in parts of a repetition, of which a request earns one
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Count a request."""
        with self._lock:
            self._left = min(self._most, self._left + 1)

    def spend(self) -> bool:
        """Return whether a request may be repeated now, and count that."""
        with self._lock:
            if self._left < self._every:
                return False
            self._left -= self._every
            return True


class Dialogues:
    """Makes the dialogues of one client: `seconds` is the time for an answer, `where` the service's address."""

    def __init__(self, where: str, seconds: float, budget: RetryBudget) -> None:
        self._where, self._seconds, self._budget = where, seconds, budget

    def score(self, pipeline: str, key: str, wishes: Wishes) -> Dialogue[Score]:
        """Ask for one key."""
        query = "&".join(f"{name}={_part(str(value))}" for name, value in vars(wishes).items() if value is not None)
        path = f"/v1/scores/{_part(pipeline)}/{_part(key)}" + (f"?{query}" if query else "")
        return self._ask(Score, "GET", path)

    def batch(self, pipeline: str, keys: list[str], wishes: Wishes) -> Dialogue[list[Score | Missing]]:
        """Ask for several keys at once."""
        try:
            body = Keys(keys=keys, **vars(wishes)).model_dump_json(exclude_none=True)
        except ValidationError as fault:
            raise ServiceError(422, "invalid-request", fault.errors()[0]["msg"]) from fault
        return (yield from self._ask(Batch, "POST", f"/v1/scores/{_part(pipeline)}", body)).answers

    def pipelines(self) -> Dialogue[list[PipelineStatus]]:
        """Ask what is live."""
        return (yield from self._ask(Pipelines, "GET", "/v1/pipelines")).pipelines

    def allowed(self, pipeline: str, keys: int, refused: ServiceError) -> Dialogue[int]:
        """Return how many keys the pipeline allows in a request, or raise what was refused if that is no way out."""
        if refused.code == "too-many-keys":
            for status in (yield from self.pipelines()):
                if status.pipeline == pipeline and status.max_keys < keys:
                    return status.max_keys
        raise refused

    def _ask(self, kind: type[A], method: str, path: str, body: str | None = None) -> Dialogue[A]:
        self._budget.earn()
        until = monotonic() + self._seconds
        for tried in range(1, TRIES + 1):
            answer = yield Ask(method, path, body, max(until - monotonic(), LEAST_SECONDS))
            pause = _pause(answer, tried)
            late = monotonic() + (pause or 0) > until
            if pause is None or tried == TRIES or late or not self._budget.spend():
                break
            yield pause
        return self._read(kind, answer)

    def _read(self, kind: type[A], answer: httpx.Response | Exception | None) -> A:
        if not isinstance(answer, httpx.Response):
            raise self._unanswered(answer) from answer
        if not answer.is_success:
            raise _error(answer)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as fault:
            raise ServiceError(answer.status_code, "unreadable-answer", _unreadable(answer)) from fault

    def _unanswered(self, fault: Exception | None) -> ServiceError:
        match fault:
            case httpx.InvalidURL():
                return ServiceError(422, "invalid-request", f"the key does not fit into an address ({fault})")
            case httpx.TimeoutException():
                told = f"{self._where} gave no answer in {self._seconds} s: try again, or wait longer"
                return ServiceUnreachable(0, "timeout", told)
        return ServiceUnreachable(0, "unreachable", f"no lookup service at {self._where} ({fault}): start it")


class Portions:
    """Keys in portions, each of as many as a request may have."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._remaining, self._size = iter(keys), Limits().batch

    def next(self) -> list[str]:
        """Return the next portion; an empty one at the end."""
        return list(islice(self._remaining, self._size))

    def again(self, portion: list[str], size: int) -> None:
        """Take a portion back, to be given in smaller ones."""
        self._remaining, self._size = chain(portion, self._remaining), size


def _pause(answer: httpx.Response | Exception | None, tried: int) -> float | None:
    """Return the seconds before the request is repeated, or None where that would not help, or help too late."""
    if isinstance(answer, httpx.Response):
        if answer.status_code != HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        told = answer.headers.get("Retry-After", "0")
        least = float(told) if told.isdigit() else 0.0
    elif isinstance(answer, httpx.NetworkError | httpx.RemoteProtocolError):
        least = 0.0
    else:
        return None
    # Clients that were refused together shall not come back together.
    share = random.uniform(0.5, 1.5)  # noqa: S311  reason: no secret
    return least + PAUSE_SECONDS * tried * share


def _part(text: str) -> str:
    """Percent-encode one part of a path; dots too, since clients and proxies drop the parts `.` and `..`."""
    try:
        return quote(text, safe="").replace(".", "%2E")
    except UnicodeEncodeError as fault:
        raise ServiceError(422, "invalid-request", f"{text!r} has half a character: send whole ones") from fault


def _unreadable(response: httpx.Response) -> str:
    return f"{response.url} answered what this client cannot read: correct the address, or upgrade the client"


def _error(response: httpx.Response) -> ServiceError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # something between us and the service answered
        return ServiceError(response.status_code, "http", f"{response.url} answered {response.status_code}")
    return ServiceError(problem.status, problem.type.rpartition(":")[2], problem.detail)
