"""The lookup service: one ASGI application over one Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.convertors import register_url_convertor

from serving.intake import BoundedBody, KeyConvertor, require_utf8
from serving.lookup import Lookup
from serving.metrics import Observed
from serving.problems import DOCUMENTED, install_problems
from serving.reader import Reader
from serving.settings import settings

MOST_BODY_BYTES = 2 * 2**20  # 1,000 keys of 256 bytes, escaped in JSON


def create() -> FastAPI:
    """Return the application, by the settings of this process; it connects to Redis at the first request."""
    reader = Reader(settings().redis_url)
    lookup = Lookup(reader, settings().clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await reader.close()

    app = FastAPI(title="Scoreline", summary="Precomputed scores by key.", version="1", lifespan=lifespan)
    app.add_middleware(BoundedBody, most=MOST_BODY_BYTES)
    app.add_middleware(Observed, metrics=lookup.metrics)
    install_problems(app)
    _route(app, lookup)
    return app


def _route(app: FastAPI, lookup: Lookup) -> None:
    register_url_convertor("key", KeyConvertor())
    utf8 = [Depends(require_utf8)]
    app.get("/v1/scores/{pipeline}/{key:key}", responses=_documented(404, 422, 503), dependencies=utf8)(lookup.score)
    app.post("/v1/scores/{pipeline}", responses=_documented(400, 404, 413, 422, 503))(lookup.scores)
    app.get("/v1/pipelines", responses=_documented(503))(lookup.pipelines)
    app.get("/healthz")(lookup.healthz)
    app.get("/readyz", responses=_documented(503))(lookup.readyz)
    app.get("/metrics", include_in_schema=False)(lookup.scrape)


def _documented(*statuses: int) -> dict[int | str, dict[str, object]]:
    return {status: DOCUMENTED[status] for status in statuses}
