"""The client maps whatever goes wrong to this package's errors, and asks for as many keys as a pipeline allows."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar, TypeVar

import httpx
import pytest

from serving.answers import Missing, Score
from serving.apikeys import new_key
from serving.client import AsyncClient, Client
from serving.dialogue import Ask, Dialogues, RetryBudget
from serving.errors import ServiceError, ServiceUnreachable
from serving.head import Fallback, Limits
from serving.store import Store
from tests.conftest import free_port
from tests.serving.conftest import service_at
from tests.serving.publishing import publish

T = TypeVar("T")


class Stranger(BaseHTTPRequestHandler):
    """Answers 200 with what no lookup service says."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"welcome")

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@contextmanager
def served_by(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server of a handler until the block ends; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def stranger() -> Iterator[str]:
    with served_by(Stranger) as url:
        yield url


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


async def asked(url: str, work: Callable[[AsyncClient], Awaitable[T]]) -> T:
    async with AsyncClient(url, seconds=60) as client:  # how fast the machine is just now is not asked
        return await work(client)


def test_the_client_that_awaits_answers_as_the_one_that_blocks(store: Store, client: Client, service_url: str) -> None:
    scores = {f"k{number}": float(number) for number in range(2_500)}
    head = publish(store, "awaited", 1, scores)
    assert store.replace(head.to_json(), replace(head, limits=Limits(batch=700))) == "live"

    async def work(other: AsyncClient) -> None:
        one = await other.score("awaited", "k7")
        assert (one.key, one.score, one.source) == ("k7", 7.0, "batch")
        found = [answer async for answer in other.scores("awaited", [*scores, "?"])]
        assert [answer.score for answer in found if isinstance(answer, Score)] == list(scores.values())
        assert isinstance(found[-1], Missing)
        pairs = zip(await other.pipelines(), client.pipelines(), strict=True)
        assert all(mine.pipeline == theirs.pipeline for mine, theirs in pairs)
        with pytest.raises(ServiceError) as refused:
            await other.score("nobody", "a")
        assert refused.value.code == "unknown-pipeline"

    asyncio.run(asked(service_url, work))


def test_many_may_await_at_once(store: Store, service_url: str) -> None:
    scores = {f"k{number}": float(number) for number in range(300)}
    publish(store, "at-once", 1, scores)

    async def work(client: AsyncClient) -> list[Score]:
        return await asyncio.gather(*(client.score("at-once", key) for key in scores))

    assert [answer.score for answer in asyncio.run(asked(service_url, work))] == list(scores.values())


def test_wishes_go_with_single_keys_and_with_batches(store: Store, client: Client, service_url: str) -> None:
    head = publish(store, "wished", 1, {"a": 0.5})
    with_prior = replace(head, fallback=Fallback("prior", 0.125, {"né w&": 0.75}))
    assert store.replace(head.to_json(), with_prior) == "live"
    assert client.score("wished", "?", segment="né w&").score == 0.75
    assert client.score("wished", "a", max_age=60).source == "fallback"
    assert [
        answer.score
        for answer in client.scores("wished", ["a", "?"], segment="né w&", max_age=1e12)
        if isinstance(answer, Score)
    ] == [0.5, 0.75]

    async def work(other: AsyncClient) -> None:
        assert (await other.score("wished", "a", max_age=60, segment="né w&")).score == 0.75
        found = [answer async for answer in other.scores("wished", ["a"], max_age=60)]
        assert [answer.score for answer in found if isinstance(answer, Score)] == [0.125]

    asyncio.run(asked(service_url, work))


def test_an_api_key_goes_with_every_request(store: Store, redis_url: str, tmp_path: Path) -> None:
    publish(store, "for-keys", 1, {"a": 0.5})
    key, line = new_key("app", ["for-keys"])
    (tmp_path / "keys").write_text(line)
    with service_at(redis_url, api_keys_file=str(tmp_path / "keys")) as url:
        with Client(url, api_key=key) as client:
            assert client.score("for-keys", "a").score == 0.5
            assert [status.pipeline for status in client.pipelines()] == ["for-keys"]
        with Client(url) as client, pytest.raises(ServiceError) as refused:
            client.score("for-keys", "a")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


class Dripping(BaseHTTPRequestHandler):
    """Answers a byte at a time, for so long that a client with less time has given up."""

    def do_GET(self) -> None:
        self.send_response(200)
        body = b'{"pipelines":[]}'
        self.send_header("Content-Length", str(len(body) + 100))
        self.end_headers()
        with suppress(ConnectionError):
            for byte in body + b" " * 100:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def test_an_answer_in_drops_is_given_up_when_the_time_is_over() -> None:
    async def work(url: str) -> None:
        async with AsyncClient(url, seconds=0.5) as client:
            with pytest.raises(ServiceUnreachable, match=r"no answer in 0\.5 s"):
                await client.pipelines()

    with served_by(Dripping) as url:
        with Client(url, 0.5) as client, pytest.raises(ServiceUnreachable, match=r"no answer in 0\.5 s") as late:
            client.pipelines()
        asyncio.run(work(url))
    assert late.value.code == "timeout"


def test_a_repetition_has_the_time_that_is_left() -> None:
    dialogue = Dialogues("", 5, RetryBudget()).pipelines()
    first = dialogue.send(None)
    assert isinstance(first, Ask)
    pause = dialogue.send(httpx.ConnectError("refused"))
    assert isinstance(pause, float)
    second = dialogue.send(None)
    assert isinstance(second, Ask)
    assert 0 < second.seconds < first.seconds <= 5


class Counted(BaseHTTPRequestHandler):
    """Answers, and keeps from where it was asked."""

    protocol_version = "HTTP/1.1"
    callers: ClassVar[set[object]]

    def do_GET(self) -> None:
        self.callers.add(self.client_address)
        body = b'{"pipelines":[]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def test_a_connection_is_kept_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, later = time.monotonic, [0, 55]

    async def work(url: str) -> None:
        async with AsyncClient(url) as client:
            for passed in later:
                monkeypatch.setattr(time, "monotonic", lambda: now() + passed)  # noqa: B023  reason: called at once
                await client.pipelines()

    Counted.callers = set()
    with served_by(Counted) as url:
        with Client(url) as client:
            for passed in later:
                monkeypatch.setattr(time, "monotonic", lambda: now() + passed)  # noqa: B023  reason: called at once
                client.pipelines()
        asyncio.run(work(url))
    assert len(Counted.callers) == 2


class Shaky(BaseHTTPRequestHandler):
    """Is unavailable as often as the test says, then answers."""

    protocol_version = "HTTP/1.1"
    faults: ClassVar[list[int]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status = self.faults.pop(0) if self.faults else 200
        if status == 0:
            self.close_connection = True
            return
        body = b'{"pipelines":[]}' if status == 200 else b"{}"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def shaky() -> Iterator[str]:
    Shaky.faults, Shaky.asked = [], []
    with served_by(Shaky) as url:
        yield url


@pytest.mark.parametrize("faults", [[503], [503, 503], [0], [0, 503]])
def test_what_is_unavailable_for_a_moment_is_asked_for_again(shaky: str, faults: list[int]) -> None:
    async def work(client: AsyncClient) -> None:
        assert await client.pipelines() == []

    with Client(shaky) as client:
        Shaky.faults = list(faults)
        assert client.pipelines() == []
    Shaky.faults = list(faults)
    asyncio.run(asked(shaky, work))
    assert len(Shaky.asked) == 2 * (len(faults) + 1)


@pytest.mark.parametrize("faults", [[503] * 3, [404], [500], [401]])
def test_what_stays_or_will_not_go_away_is_raised(shaky: str, faults: list[int]) -> None:
    with Client(shaky) as client:
        Shaky.faults = list(faults)
        with pytest.raises(ServiceError) as refused:
            client.pipelines()
    assert refused.value.status == faults[0]
    assert len(Shaky.asked) == len(faults)


def test_repetitions_are_a_tenth_of_the_requests_in_a_long_outage(shaky: str) -> None:
    budget = RetryBudget()
    with Client(shaky, budget=budget) as client:
        for _ in range(40):
            Shaky.faults = [503] * 3
            with pytest.raises(ServiceError):
                client.pipelines()
    assert 40 + 10 < len(Shaky.asked) <= 40 + 10 + 40 // 10


def test_no_repetition_begins_when_the_time_is_over(shaky: str) -> None:
    with Client(shaky, seconds=0.05) as client:
        Shaky.faults = [503]
        with pytest.raises(ServiceError):
            client.pipelines()
    assert len(Shaky.asked) == 1
