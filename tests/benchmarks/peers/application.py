"""Our own application as uvicorn serves it: all but the server, and the short way of plain lookups."""

from starlette.types import ASGIApp

from serving.service import Service, create
from serving.settings import settings


def application() -> ASGIApp:
    """Return the application of the settings in the environment."""
    return create(Service.by(settings()))
