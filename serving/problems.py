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
    StoreUnavailable,
    TooManyKeys,
    TornGeneration,
    UnknownKey,
    UnknownPipeline,
)

PREFIX = "urn:scoreline:problem:"
MEDIA_TYPE = "application/problem+json"
LOG = logging.getLogger(__name__)
RETRY_AFTER = {"Retry-After": "1"}

KINDS: dict[type[ServingError], tuple[int, str, str]] = {
    UnknownPipeline: (404, "unknown-pipeline", "No such pipeline is live"),
    UnknownKey: (404, "unknown-key", "No score for this key"),
    KeyRefused: (422, "key-refused", "The key cannot be looked up"),
    TooManyKeys: (422, "too-many-keys", "Too many keys in one request"),
    StoreUnavailable: (503, "store-unavailable", "The store of scores does not answer"),
    TornGeneration: (503, "torn-generation", "The live generation is not complete"),
    LayoutError: (503, "corrupt-block", "A block of the live generation is damaged"),
    HeadUnreadable: (503, "unreadable-head", "The record of the live generation cannot be read"),
    ServingError: (503, "store-refused", "The store of scores refuses the request"),
}
# How OpenAPI shows them; Problem is in the document as a part of Batch.
DOCUMENTED: dict[int | str, dict[str, object]] = {
    status: {
        "description": HTTPStatus(status).phrase,
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
    LOG.warning("%s: %s", type(fault).__name__, fault)
    return "the scores cannot be read now: try again; the log of the service says why"


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
            faults = (f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in fault.errors())
            return _plain(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "; ".join(faults))
        case HTTPException():
            status = HTTPStatus(fault.status_code)
            return _plain(status, status.phrase.lower().replace(" ", "-"), fault.detail)
    # What went wrong is in the log; the caller learns nothing of our insides.
    return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "a fault of the service, which its log explains")


def _plain(status: HTTPStatus, code: str, detail: str) -> Problem:
    return Problem(type=PREFIX + code, title=status.phrase, status=status, detail=detail)
