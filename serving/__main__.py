"""Run the lookup service: `python -m serving`."""

import gc
import ipaddress
import logging
import sys

import uvloop

from serving.errors import SettingsError
from serving.settings import Settings, settings
from serving.web.logs import configure_logging
from serving.web.server import Server, listening
from serving.web.service import Service, create


def main() -> int:
    """Serve until stopped; settings that cannot be used end it at once with one line."""
    configure_logging()
    try:
        found = settings()
        _require_keys(found)
        uvloop.run(_serve(found))
    except SettingsError as fault:
        sys.stderr.write(f"scoreline: error: {fault}\n")
        return 2
    return 0


async def _serve(found: Settings) -> None:
    service = Service.by(found)
    app = create(service)
    listener = listening(found.host, found.port)
    logging.getLogger("serving").info("listening on %s, port %d", found.host, found.port)
    gc.freeze()  # what is there now stays: it need not be looked through again and again
    try:
        await Server(service, app, listener).serve()
    finally:
        await service.close()


def _require_keys(found: Settings) -> None:
    """Raise `SettingsError` where the network could read scores without a key."""
    if found.api_keys_file is None and not _loopback(found.host):
        raise SettingsError(
            f"SCORELINE_HOST: {found.host} is open to the network, and SCORELINE_API_KEYS_FILE names no file of keys: "
            "make one with `scoreline api-key new NAME --pipeline P`, or listen on 127.0.0.1"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
