"""Our own application as uvicorn serves it: all but the server, and the short way of plain lookups."""

from starlette.types import ASGIApp

from serving.settings import settings
from serving.web.service import Service, create


def application() -> ASGIApp:
    """Return the application of the settings in the environment."""
    return create(Service.by(settings()))
