"""A small client of the lookup service: typed answers over one kept-alive connection pool."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from serving.answers import Batch, Keys, Missing, Pipelines, PipelineStatus, Problem, Score
from serving.errors import ServiceError, ServiceUnreachable

A = TypeVar("A", bound=BaseModel)

BATCH = 1000


class Client:
    """Looks up scores at `url`, such as http://127.0.0.1:8700.

    Every method raises `ServiceError` for what the service refuses (and, unsent, for text that no request can hold) or
    for an answer that is none of the service's, and `ServiceUnreachable` where nothing answers within `seconds`. The
    service is asked directly, never through a proxy that the environment names. Close the client, or use it in a `with`
    statement.
    """

    def __init__(self, url: str, seconds: float = 5.0) -> None:
        # With a transport of its own httpx leaves HTTP_PROXY aside, and still takes SSL_CERT_FILE.
        self._http = httpx.Client(base_url=url, timeout=seconds, transport=httpx.HTTPTransport())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def score(self, pipeline: str, key: str) -> Score:
        """Return the score of one key, or the pipeline's fallback for an unknown one."""
        return self._ask(Score, "GET", f"/v1/scores/{_part(pipeline)}/{_part(key)}")

    def scores(self, pipeline: str, keys: Iterable[str]) -> Iterator[Score | Missing]:
        """Yield an answer for each key, in order; each request of up to 1,000 keys is answered from one generation.

        A pipeline that allows fewer keys in a request is asked for as many as it allows.
        """
        remaining, size = iter(keys), BATCH
        while batch := list(islice(remaining, size)):
            try:
                answers = self._batch(pipeline, batch)
            except ServiceError as refused:
                size = self._smaller(pipeline, len(batch), refused)
                remaining = chain(batch, remaining)
            else:
                yield from answers

    def pipelines(self) -> list[PipelineStatus]:
        """Return what is live, for every pipeline."""
        return self._ask(Pipelines, "GET", "/v1/pipelines").pipelines

    def _batch(self, pipeline: str, keys: list[str]) -> list[Score | Missing]:
        try:
            body = Keys(keys=keys).model_dump_json()
        except ValidationError as fault:
            raise ServiceError(422, "invalid-request", fault.errors()[0]["msg"]) from fault
        return self._ask(Batch, "POST", f"/v1/scores/{_part(pipeline)}", body).answers

    def _smaller(self, pipeline: str, size: int, refused: ServiceError) -> int:
        """Return how many keys the pipeline allows in a request, or raise what was refused if that is no way out."""
        if refused.code == "too-many-keys":
            for status in self.pipelines():
                if status.pipeline == pipeline and status.max_keys < size:
                    return status.max_keys
        raise refused

    def _ask(self, kind: type[A], method: str, path: str, body: str | None = None) -> A:
        try:
            response = self._http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        except (httpx.RequestError, httpx.InvalidURL) as fault:
            raise _unanswered(fault, self._http) from fault
        if not response.is_success:
            raise _error(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as fault:
            raise ServiceError(response.status_code, "unreadable-answer", _unreadable(response)) from fault


def _part(text: str) -> str:
    """Percent-encode one part of a path; dots too, since clients and proxies drop the parts `.` and `..`."""
    try:
        return quote(text, safe="").replace(".", "%2E")
    except UnicodeEncodeError as fault:
        raise ServiceError(422, "invalid-request", f"{text!r} has half a character: send whole ones") from fault


def _unanswered(fault: Exception, http: httpx.Client) -> ServiceError:
    where = http.base_url
    match fault:
        case httpx.InvalidURL():
            return ServiceError(422, "invalid-request", f"the key does not fit into an address ({fault})")
        case httpx.TimeoutException():
            seconds = http.timeout.read
            return ServiceUnreachable(0, "timeout", f"{where} gave no answer in {seconds} s: try again, or wait longer")
    return ServiceUnreachable(0, "unreachable", f"no lookup service at {where} ({fault}): start it")


def _unreadable(response: httpx.Response) -> str:
    return f"{response.url} answered what this client cannot read: correct the address, or upgrade the client"


def _error(response: httpx.Response) -> ServiceError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # something between us and the service answered
        return ServiceError(response.status_code, "http", f"{response.url} answered {response.status_code}")
    return ServiceError(problem.status, problem.type.rpartition(":")[2], problem.detail)
