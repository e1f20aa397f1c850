"""The lookup service in this process, for what cannot be brought about from outside."""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from serving.settings import Settings
from serving.web.server import Server, listening
from serving.web.service import Service, create
from tests.conftest import free_port


def served(redis_url: str, work: Callable[[str], object]) -> None:
    """Run a service, and `work` with its URL in a thread; stop it when that is done."""

    async def in_thread(url: str, _: Server) -> None:
        await asyncio.to_thread(work, url)

    served_beside(redis_url, in_thread)


def served_beside(redis_url: str, work: Callable[[str, Server], Awaitable[None]]) -> None:
    """Run a service, and `work` with its URL and its server in the same event loop; stop it when that is done."""

    async def session() -> None:
        service, port = Service.by(Settings(redis_url=redis_url)), free_port()
        server = Server(service, create(service), listening("127.0.0.1", port))
        serving = asyncio.create_task(server.serve())
        try:
            await work(f"http://127.0.0.1:{port}", server)
        finally:
            server.stop.set()
            await serving
            await service.close()

    uvloop.run(session())
