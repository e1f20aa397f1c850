"""TLS: servers and clients know each other by the certificates of one authority."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from serving.errors import StoreUnavailable
from serving.store import Store
from serving.wire import connection
from tests.serving.certificates import certificates_in
from tests.serving.topologies import Site, over


def ask_as_job(url: str) -> object:
    with Store(url) as store:
        return store.connection.ask([("PING",)])


def ask_as_service(url: str) -> object:
    return over(url, lambda opened: opened.ask([("PING",)]))


@pytest.mark.parametrize("ask", [ask_as_job, ask_as_service])
def test_nobody_is_trusted_without_a_certificate_of_the_authority(
    servers: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], object]
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0)
    own, other = certificates_in(tmp_path / "own"), certificates_in(tmp_path / "other")
    site = Site(tmp_path, servers, own)
    server = site.start()
    assert ask(site.url("publisher", server)) == [b"PONG"]
    assert ask(named_otherwise(site.url("publisher", server)) + "&ssl_check_hostname=no") == [b"PONG"]
    strange = {
        "another authority": replace(site, certificates=replace(own, ca=other.ca)).url("publisher", server),
        "another's client": replace(site, certificates=replace(other, ca=own.ca)).url("publisher", server),
        "no certificate": site.url("publisher", server).partition("&ssl_certfile")[0],
        "another host": named_otherwise(site.url("publisher", server)),
        "no TLS": site.url("publisher", server).replace("rediss", "redis").partition("?")[0],
    }
    for what, url in strange.items():
        with pytest.raises(StoreUnavailable, match="does not answer"):
            pytest.fail(f"{what}: {ask(url)}")


def named_otherwise(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")
