"""Every error of the service as an RFC 9457 problem document."""

import logging
from http import HTTPStatus
from typing import NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving.answers import Problem
from serving.errors import (
    AnswerTooOld,
    CallerUnknown,
    HeadLost,
    HeadUnreadable,
    KeyRefused,
    LayoutError,
    PipelineForbidden,
    ServingError,
    StoreRefused,
    StoreUnavailable,
    TooManyKeys,
    TornGeneration,
    Unforeseen,
    UnknownKey,
    UnknownPipeline,
)
from serving.sparing import SparingLog

PREFIX = "urn:scoreline:problem:"
MEDIA_TYPE = "application/problem+json"
LOG = SparingLog(logging.getLogger(__name__))
# What a status says to a client beside its document.
HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}
OUR_FAULT = "a fault of the service, which its log explains: try again"
MOST_FAULTS = 3  # of one request are told

# The service's own words: those of `http.HTTPStatus` change with the version of Python.
STATUSES: dict[int, tuple[str, str]] = {
    400: ("bad-request", "Bad request"),
    401: ("unauthorized", "An API key is needed"),
    403: ("forbidden", "The API key may not read this"),
    404: ("not-found", "No such path"),
    405: ("method-not-allowed", "Method not allowed"),
    408: ("request-timeout", "The request came too slowly"),
    413: ("request-entity-too-large", "The body is too large"),
    422: ("invalid-request", "The request is not valid"),
    431: ("headers-too-large", "The request's head is too large"),
    500: ("internal", "A fault of the service"),
    503: ("unavailable", "The scores cannot be read now"),
}

# In place of the framework's, which do not say what to do.
WORDS = {
    400: "the body cannot be read: send JSON in UTF-8",
    404: "there is nothing at this path: /docs shows which paths there are",
    405: "this path does not take this method: /docs shows which methods it takes",
}

KINDS: dict[type[ServingError], tuple[int, str, str]] = {
    UnknownPipeline: (404, "unknown-pipeline", "No such pipeline is live"),
    UnknownKey: (404, "unknown-key", "No score for this key"),
    AnswerTooOld: (404, "answer-too-old", "No score of this key is fresh enough"),
    CallerUnknown: (401, *STATUSES[401]),
    PipelineForbidden: (403, *STATUSES[403]),
    KeyRefused: (422, "key-refused", "The key cannot be looked up"),
    TooManyKeys: (422, "too-many-keys", "Too many keys in one request"),
    StoreUnavailable: (503, "store-unavailable", "The store of scores does not answer"),
    TornGeneration: (503, "torn-generation", "The live generation is not complete"),
    LayoutError: (503, "corrupt-block", "A block of the live generation is damaged"),
    HeadLost: (503, "lost-head", "The store of scores has lost the live generation"),
    HeadUnreadable: (503, "unreadable-head", "The record of the live generation cannot be read"),
    StoreRefused: (503, "store-refused", "The store of scores refuses the request"),
    Unforeseen: (500, *STATUSES[500]),
    ServingError: (503, "store-refused", "The store of scores refuses the request"),
}


class Rendered(NamedTuple):
    """A problem document ready to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes


def problem_of(fault: ServingError, request_id: str | None = None) -> Problem:
    """Return the problem document of one of this package's errors."""
    kind = next(cls for cls in type(fault).__mro__ if cls in KINDS)
    status, code, title = KINDS[kind]
    detail = _public(status, fault, request_id or "")
    return Problem(type=PREFIX + code, title=title, status=status, detail=detail, request_id=request_id)


def plain_problem(status: int, detail: str, request_id: str) -> Problem:
    """Return the problem document of a status that no error of this package stands behind."""
    code, title = STATUSES.get(status, (f"http-{status}", "The request is refused"))
    return Problem(type=PREFIX + code, title=title, status=status, detail=detail, request_id=request_id)


def rendered(problem: Problem) -> Rendered:
    """Return a problem document with the headers that belong to its status."""
    headers = {"Content-Type": MEDIA_TYPE, **HEADERS.get(problem.status, {})}
    return Rendered(problem.status, headers, problem.model_dump_json().encode())


def log_fault(fault: ServingError, request_id: str = "") -> None:
    """Log a fault for an operator, sparingly: in an outage each request has the same one."""
    LOG.tell(type(fault).__name__, fault, request_id)


def documented(*statuses: int) -> dict[int | str, dict[str, object]]:
    """Return how OpenAPI shows the problems of an endpoint; Problem is in its document as a part of Batch."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": STATUSES[status][1], "content": content} for status in statuses}


def install_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    for kind in (ServingError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(request: Request, fault: Exception) -> Response:
    status, headers, body = rendered(_document(fault, getattr(request.state, "request_id", "")))
    if isinstance(fault, HTTPException):
        headers = {**(fault.headers or {}), **headers}
    return Response(body, status, headers)


def _public(status: int, fault: ServingError, request_id: str) -> str:
    """What an operator needs (addresses, settings) goes to the log; callers learn only what they can act on."""
    if status != HTTPStatus.SERVICE_UNAVAILABLE:
        return str(fault)
    log_fault(fault, request_id)
    return "the scores cannot be read now: try again; the log of the service says why"


def _document(fault: Exception, request_id: str) -> Problem:
    match fault:
        case ServingError():
            return problem_of(fault, request_id)
        case RequestValidationError():
            return plain_problem(HTTPStatus.UNPROCESSABLE_ENTITY, _told(fault), request_id)
        case HTTPException():
            return plain_problem(fault.status_code, WORDS.get(fault.status_code, fault.detail), request_id)
    # What went wrong is in the log; the caller learns nothing of our insides.
    return plain_problem(HTTPStatus.INTERNAL_SERVER_ERROR, OUR_FAULT, request_id)


def _told(fault: RequestValidationError) -> str:
    faults = fault.errors()
    told = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in faults[:MOST_FAULTS]]
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return f"{'; '.join(told + more)}: /docs shows what a request may hold"
