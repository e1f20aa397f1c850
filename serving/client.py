"""A small client of the lookup service: typed answers over one kept-alive connection pool."""

from collections.abc import Iterable, Iterator
from itertools import islice
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

    Every method raises `ServiceError` for what the service refuses and `ServiceUnreachable` where nothing answers
    within `seconds`. Close it, or use it in a `with` statement.
    """

    def __init__(self, url: str, seconds: float = 5.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=seconds)

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
        """Yield an answer for each key, in order; 1,000 keys a request, each request from one generation."""
        remaining = iter(keys)
        while batch := list(islice(remaining, BATCH)):
            body = Keys(keys=batch).model_dump_json()
            yield from self._ask(Batch, "POST", f"/v1/scores/{_part(pipeline)}", body).answers

    def pipelines(self) -> list[PipelineStatus]:
        """Return what is live, for every pipeline."""
        return self._ask(Pipelines, "GET", "/v1/pipelines").pipelines

    def _ask(self, kind: type[A], method: str, path: str, body: str | None = None) -> A:
        try:
            response = self._http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        except httpx.TransportError as fault:
            where = self._http.base_url
            raise ServiceUnreachable(0, "unreachable", f"no lookup service at {where} ({fault}): start it") from fault
        if response.is_success:
            return kind.model_validate_json(response.content)
        raise _error(response)


def _part(text: str) -> str:
    """Percent-encode one part of a path; dots too, since clients and proxies drop the parts `.` and `..`."""
    return quote(text, safe="").replace(".", "%2E")


def _error(response: httpx.Response) -> ServiceError:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # something between us and the service answered
        return ServiceError(response.status_code, "http", f"{response.url} answered {response.status_code}")
    return ServiceError(problem.status, problem.type.rpartition(":")[2], problem.detail)
