"""The client maps whatever goes wrong to this package's errors, and asks for as many keys as a pipeline allows."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from serving.answers import Score
from serving.client import Client
from serving.errors import ServiceError, ServiceUnreachable
from serving.head import Limits
from serving.store import Store
from tests.conftest import free_port
from tests.serving.publishing import publish


class Stranger(BaseHTTPRequestHandler):
    """Answers 200 with what no lookup service says."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"welcome")

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def stranger() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_client_without_a_service_says_so() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as nobody,
        pytest.raises(ServiceUnreachable, match="no lookup service") as unreachable,
    ):
        nobody.score("p", "a")
    assert unreachable.value.code == "unreachable"


def test_a_service_that_takes_too_long_is_not_called_absent() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, seconds=0.2) as client,
            pytest.raises(ServiceUnreachable, match=r"no answer in 0\.2 s") as late,
        ):
            client.score("p", "a")
    assert late.value.code == "timeout"


def test_an_answer_of_something_else_is_told_apart(stranger: str) -> None:
    with Client(stranger) as client, pytest.raises(ServiceError, match="cannot read: correct the address") as refused:
        client.score("p", "a")
    assert (refused.value.status, refused.value.code) == (200, "unreadable-answer")


@pytest.mark.parametrize(("pipeline", "key"), [("p", "\ud800"), ("\ud800", "a"), ("p", "x" * 100_000)])
def test_text_that_no_request_can_hold_is_refused(client: Client, pipeline: str, key: str) -> None:
    with pytest.raises(ServiceError) as refused:
        client.score(pipeline, key)
    assert (refused.value.status, refused.value.code) == (422, "invalid-request")


def test_half_a_character_in_a_batch_is_refused(client: Client) -> None:
    with pytest.raises(ServiceError) as refused:
        list(client.scores("p", ["a", "\ud800"]))
    assert (refused.value.status, refused.value.code) == (422, "invalid-request")


def test_a_pipeline_that_allows_few_keys_in_a_request_is_asked_for_few(store: Store, client: Client) -> None:
    scores = {f"k{number}": float(number) for number in range(20)}
    head = publish(store, "few", 1, scores)
    assert store.replace(head.to_json(), replace(head, limits=Limits(batch=7))) == "live"
    found = [answer.score for answer in client.scores("few", scores) if isinstance(answer, Score)]
    assert found == list(scores.values())


def test_an_unknown_pipeline_is_refused_in_a_batch_too(client: Client) -> None:
    with pytest.raises(ServiceError) as refused:
        list(client.scores("nobody", ["a"]))
    assert refused.value.code == "unknown-pipeline"


def test_a_proxy_of_the_environment_is_not_asked(
    store: Store, service_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, "direct", 1, {"a": 0.5})
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with Client(service_url) as client:
        assert client.score("direct", "a").score == 0.5
