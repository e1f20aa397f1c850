"""Every error of the service as an RFC 9457 problem document."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serving.answers import Problem
from serving.errors import (
    HeadUnreadable,
    KeyRefused,
    LayoutError,
    ServingError,
    StoreRefused,
    StoreUnavailable,
    TooManyKeys,
    TornGeneration,
    UnknownKey,
    UnknownPipeline,
)
from serving.sparing import SparingLog

PREFIX = "urn:scoreline:problem:"
MEDIA_TYPE = "application/problem+json"
LOG = SparingLog(logging.getLogger(__name__))
RETRY_AFTER = {"Retry-After": "1"}
MOST_FAULTS = 3  # of one request are told

# The service's own words: those of `http.HTTPStatus` change with the version of Python.
STATUSES: dict[int, tuple[str, str]] = {
    400: ("bad-request", "Bad request"),
    404: ("not-found", "No such path"),
    405: ("method-not-allowed", "Method not allowed"),
    413: ("request-entity-too-large", "The body is too large"),
    422: ("invalid-request", "The request is not valid"),
    500: ("internal", "A fault of the service"),
    503: ("unavailable", "The scores cannot be read now"),
}

KINDS: dict[type[ServingError], tuple[int, str, str]] = {
    UnknownPipeline: (404, "unknown-pipeline", "No such pipeline is live"),
    UnknownKey: (404, "unknown-key", "No score for this key"),
    KeyRefused: (422, "key-refused", "The key cannot be looked up"),
    TooManyKeys: (422, "too-many-keys", "Too many keys in one request"),
    StoreUnavailable: (503, "store-unavailable", "The store of scores does not answer"),
    TornGeneration: (503, "torn-generation", "The live generation is not complete"),
    LayoutError: (503, "corrupt-block", "A block of the live generation is damaged"),
    HeadUnreadable: (503, "unreadable-head", "The record of the live generation cannot be read"),
    StoreRefused: (503, "store-refused", "The store of scores refuses the request"),
    ServingError: (503, "store-refused", "The store of scores refuses the request"),
}
# How OpenAPI shows them; Problem is in the document as a part of Batch.
DOCUMENTED: dict[int | str, dict[str, object]] = {
    status: {
        "description": STATUSES[status][1],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 404, 413, 422, 503)
}


def problem_of(fault: ServingError) -> Problem:
    """Return the problem document of one of this package's errors."""
    kind = next(cls for cls in type(fault).__mro__ if cls in KINDS)
    status, code, title = KINDS[kind]
    return Problem(type=PREFIX + code, title=title, status=status, detail=_public(status, fault))


def _public(status: int, fault: ServingError) -> str:
    """What an operator needs (addresses, settings) goes to the log; callers learn only what they can act on."""
    if status != HTTPStatus.SERVICE_UNAVAILABLE:
        return str(fault)
    log_fault(fault)
    return "the scores cannot be read now: try again; the log of the service says why"


def log_fault(fault: ServingError) -> None:
    """Log a fault for an operator, sparingly: in an outage each request has the same one."""
    LOG.tell(type(fault).__name__, fault)


def install_problems(app: FastAPI) -> None:
    """Make `app` answer every error with a problem document."""
    for kind in (ServingError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)


async def _answer(_: Request, fault: Exception) -> JSONResponse:
    problem = _document(fault)
    headers = dict(fault.headers or {}) if isinstance(fault, HTTPException) else {}
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers |= RETRY_AFTER
    return JSONResponse(problem.model_dump(), problem.status, headers, MEDIA_TYPE)


def _document(fault: Exception) -> Problem:
    match fault:
        case ServingError():
            return problem_of(fault)
        case RequestValidationError():
            return _plain(HTTPStatus.UNPROCESSABLE_ENTITY, _told(fault))
        case HTTPException():
            return _plain(fault.status_code, fault.detail)
    # What went wrong is in the log; the caller learns nothing of our insides.
    return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the service, which its log explains")


def _told(fault: RequestValidationError) -> str:
    faults = fault.errors()
    told = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in faults[:MOST_FAULTS]]
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "; ".join(told + more)


def _plain(status: int, detail: str) -> Problem:
    code, title = STATUSES.get(status, (f"http-{status}", "The request is refused"))
    return Problem(type=PREFIX + code, title=title, status=status, detail=detail)
