"""The lookup service: one ASGI application over one Redis."""

from dataclasses import dataclass

from fastapi import Depends, FastAPI, Security, params
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.convertors import register_url_convertor
from starlette.types import ASGIApp

from serving.apikeys import KeyRing
from serving.clock import Clock
from serving.reader import Reader
from serving.settings import Settings
from serving.web.intake import Guarded, KeyConvertor, Noted, Timely, require_utf8
from serving.web.journal import Journal
from serving.web.logs import BulkWriter
from serving.web.lookup import Lookup
from serving.web.problems import documented, install_problems

STDOUT = 1


@dataclass(frozen=True)
class Service:
    """What all requests of a process share."""

    reader: Reader
    keyring: KeyRing
    journal: Journal
    clock: Clock

    @classmethod
    def by(cls, found: Settings) -> "Service":
        """Return the service of some settings; it connects to Redis at the first request."""
        return cls(Reader.at(found.redis_url), KeyRing(found.api_keys_file), Journal(BulkWriter(STDOUT)), found.clock)

    async def close(self) -> None:
        """Close the connections, and write what is left of the log."""
        await self.reader.close()
        self.journal.close()


def create(service: Service) -> ASGIApp:
    """Return the application; its documents need no other host."""
    app = FastAPIOffline(title="Scoreline", summary="Precomputed scores by key.", version="1", redoc_url=None)
    install_problems(app)
    _route(app, service)
    return Noted(Timely(Guarded(app, service.keyring)), service.journal)


def _route(app: FastAPI, service: Service) -> None:
    register_url_convertor("key", KeyConvertor())
    lookup = Lookup(service.reader, service.clock, service.journal)
    keys = _security(service.keyring)
    utf8 = [Depends(require_utf8), *keys]
    problems = documented(401, 403) if keys else {}
    app.get("/v1/scores/{pipeline}/{key:key}", responses=documented(404, 422, 503) | problems, dependencies=utf8)(
        lookup.score
    )
    app.post("/v1/scores/{pipeline}", responses=documented(400, 404, 413, 422, 503) | problems, dependencies=keys)(
        lookup.scores
    )
    app.get("/v1/pipelines", responses=documented(503) | problems, dependencies=keys)(lookup.pipelines)
    app.get("/healthz")(lookup.healthz)
    app.get("/readyz", responses=documented(503))(lookup.readyz)
    app.get("/metrics", include_in_schema=False)(lookup.scrape)


def _security(keyring: KeyRing) -> list[params.Depends]:
    """Return what tells of API keys in the OpenAPI document; `Guarded` is what checks them."""
    if keyring.path is None:
        return []
    bearer = HTTPBearer(auto_error=False, description="An API key.")
    return [Security(bearer), Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key."))]
