"""Connections: requests behind each other and in pieces, limits on what comes, and time for each."""

import asyncio
import errno
import json
import resource
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from threading import Event

import pytest

from serving.store import Store
from serving.web import front, intake, server
from serving.web.intake import MOST_BODY_BYTES, MOST_HEAD_BYTES
from serving.web.quick import Quick
from serving.web.server import listening
from tests.serving import inside
from tests.serving.conftest import process_at
from tests.serving.inside import served
from tests.serving.publishing import publish
from tests.serving.raw import HOST, RawClient, get, post
from tests.serving.topologies import await_true

ONE = get("/v1/scores/front/a")
LONG = get("/v1/scores/front/a", "TE: trailers")
MANY = post("/v1/scores/front", b'{"keys": ["a", "b"]}')


@pytest.fixture(scope="module", autouse=True)
def published(store: Store) -> None:
    publish(store, "front", 1, {"a": 0.5, "b": 0.25})


@pytest.fixture
def client(service_url: str) -> Iterator[RawClient]:
    with RawClient(service_url) as opened:
        assert opened.ask(LONG).status == 200  # so that the short way knows the pipeline
        yield opened


def test_requests_that_come_together_are_answered_in_their_order(client: RawClient) -> None:
    requests = [get(f"/v1/scores/front/a{'/' * n}", *(["TE: a"] if n % 3 == 0 else [])) for n in range(30)]
    client.socket.sendall(b"".join([*requests, MANY, LONG, ONE]))
    first = client.receive()
    assert first.json["key"] == "a"
    details = [client.receive().json["detail"] for _ in range(29)]
    assert [detail.count("/") for detail in details] == list(range(1, 30))
    assert [answer["key"] for answer in client.receive().json["answers"]] == ["a", "b"]
    assert [client.receive().status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("request_", [ONE, LONG, MANY], ids=["one", "long", "many"])
def test_a_request_in_pieces_is_answered(client: RawClient, request_: bytes) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for cut, end in pairwise([0, 3, 20, 21, len(request_) - 1, len(request_)]):
        client.socket.sendall(request_[cut:end])
    assert client.receive().status == 200
    assert client.ask(ONE).status == 200


def test_a_body_in_crumbs_is_looked_at_once_it_is_whole(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    reads, takes, start = [], [], len(MANY) - 15
    data_received, take = front.HttpConnection.data_received, Quick.take

    def counted(self: front.HttpConnection, data: bytes) -> None:
        data_received(self, data)
        reads.append(data)

    def noted(self: Quick, by: front.HttpConnection, data: bytes) -> int:
        takes.append(data)
        return take(self, by, data)

    monkeypatch.setattr(front.HttpConnection, "data_received", counted)
    monkeypatch.setattr(Quick, "take", noted)

    def work(url: str) -> None:
        with RawClient(url) as client:
            client.ask(LONG)
            reads.clear()
            takes.clear()
            for place in range(start, len(MANY)):
                client.socket.sendall(MANY[:start] if place == start else MANY[place - 1 : place])
                await_true(lambda: len(reads) > place - start)  # noqa: B023  reason: awaited at once
            assert takes == [MANY[:start]]
            assert client.ask(MANY[-1:] + ONE).status == 200
            assert client.receive().status == 200

    served(redis_url, work)
    assert takes == [MANY[:start], MANY + ONE, ONE]


@pytest.mark.parametrize("request_", [ONE, LONG, MANY], ids=["one", "long", "many"])
def test_a_client_that_sends_no_more_has_its_answers_and_then_the_end(client: RawClient, request_: bytes) -> None:
    client.socket.sendall(request_ * 3)
    client.socket.shutdown(socket.SHUT_WR)
    assert [client.receive().status for _ in range(3)] == [200] * 3
    assert client.ended()


@pytest.mark.parametrize("part", [ONE[:40], LONG[:-3], MANY[:-1]], ids=["one", "long", "many"])
def test_half_a_request_that_will_never_be_whole_ends_the_connection(client: RawClient, part: bytes) -> None:
    client.socket.sendall(ONE + part)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.receive().status == 200
    assert client.ended()


def test_the_end_is_announced_when_it_was_asked_for(client: RawClient) -> None:
    answer = client.ask(get("/v1/scores/front/a", "Connection: close"))
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.ended()


def test_who_waits_for_a_sign_to_send_the_body_has_it(client: RawClient) -> None:
    head, _, body = post("/v1/scores/front", b'{"keys": ["a"]}', "Expect: 100-continue").partition(b"\r\n\r\n")
    client.socket.sendall(head + b"\r\n\r\n")
    assert client.socket.recv(100).startswith(b"HTTP/1.1 100 ")
    assert client.ask(body).status == 200


def test_a_body_stays_one_where_the_sign_to_send_it_is_taken_slowly(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    write, taken = front.HttpConnection.write, Event()

    def choking(self: front.HttpConnection, data: bytes) -> None:
        """Do what the transport does where what is written is too much for the moment."""
        write(self, data)
        if data.startswith(b"HTTP/1.1 100 "):
            self.pause_writing()
            asyncio.get_running_loop().create_task(resume(self))

    async def resume(self: front.HttpConnection) -> None:
        await asyncio.to_thread(taken.wait)
        self.resume_writing()

    monkeypatch.setattr(front.HttpConnection, "write", choking)
    head, _, body = post("/v1/scores/front", b'{"keys": ["a", "b"]}', "Expect: 100-continue").partition(b"\r\n\r\n")

    def work(url: str) -> None:
        with RawClient(url) as client:
            client.socket.sendall(head + b"\r\n\r\n")
            assert client.socket.recv(100).startswith(b"HTTP/1.1 100 ")
            client.socket.sendall(body[:4])
            time.sleep(0.3)  # for it to be read
            taken.set()
            time.sleep(0.3)
            assert client.ask(body[4:]).status == 200
            assert client.ask(ONE).status == 200

    served(redis_url, work)


def test_a_head_is_answered_without_a_body(client: RawClient) -> None:
    answer = client.ask(b"HEAD /static-offline-docs/favicon.png HTTP/1.1\r\n" + HOST + b"\r\n", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert client.ask(ONE).status == 200


ANNOUNCED = (
    b"POST /v1/scores/front HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" + HOST + b"\r\n"
)
CHUNKED = b"POST /v1/scores/front HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"\r\n"
LARGE = {
    "headers": (get("/v1/scores/front/a", f"A: {'x' * MOST_HEAD_BYTES}"), 431, "headers-too-large"),
    "headers without end": (b"GET /v1/scores/front/" + b"x" * 2 * MOST_HEAD_BYTES, 431, "headers-too-large"),
    "body": (post("/v1/scores/front", bytes(MOST_BODY_BYTES + 1)), 413, "request-entity-too-large"),
    "announced body": (ANNOUNCED % (MOST_BODY_BYTES + 1), 413, "request-entity-too-large"),
    "endless body": (CHUNKED + (b"10000\r\n" + bytes(2**16) + b"\r\n") * 40, 413, "request-entity-too-large"),
    "crumbs": (CHUNKED + b"1\r\n0\r\n" * 100_000, 400, "bad-request"),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad-request"),
    "two lengths": (post("/v1/scores/front", b"{}", "Content-Length: 3"), 400, "bad-request"),
    "a length and chunks": (
        post("/v1/scores/front", b"0\r\n\r\n", "Transfer-Encoding: chunked") + ONE,
        400,
        "bad-request",
    ),
}


@pytest.mark.parametrize("case", LARGE)
def test_what_is_too_large_or_no_http_is_refused_with_a_problem(client: RawClient, case: str) -> None:
    request, status, code = LARGE[case]
    answer = client.ask(request)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json["type"] == f"urn:scoreline:problem:{code}"
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert client.ended()


def test_more_connections_than_there_are_files_wait_for_their_turn(redis_url: str) -> None:
    with process_at(redis_url) as (url, process):
        with RawClient(url) as client:
            assert client.ask(ONE).status == 200
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (40, 40))
        crowd = [RawClient(url, seconds=60) for _ in range(60)]
        for client in crowd:
            client.socket.sendall(get("/v1/scores/front/a", "Connection: close"))
        assert [client.receive().status for client in crowd] == [200] * 60
        for client in crowd:
            client.socket.close()


class Shaky(socket.socket):
    """A listener whose first client has gone before it is taken."""

    gone = False

    def accept(self) -> tuple[socket.socket, object]:
        """Fail once, as Linux may."""
        if not self.gone:
            self.gone = True
            raise ConnectionAbortedError(errno.ECONNABORTED, "Software caused connection abort")
        return super().accept()


def test_a_client_that_goes_before_it_is_taken_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 3600)
    monkeypatch.setattr(inside, "listening", lambda *place: Shaky(fileno=listening(*place).detach()))

    def work(url: str) -> None:
        with RawClient(url) as client:
            assert client.ask(ONE).status == 200

    served(redis_url, work)


def test_connections_beyond_the_most_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.01)
    counts: list[int] = []
    made = front.HttpConnection.connection_made

    def counted(self: front.HttpConnection, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        counts.append(len(self._host.connections))

    monkeypatch.setattr(front.HttpConnection, "connection_made", counted)

    def work(url: str) -> None:
        crowd = [RawClient(url) for _ in range(20)]
        for client in crowd:
            client.socket.sendall(get("/v1/scores/front/a", "Connection: close"))
        for client in crowd:
            assert client.receive().status == 200
            client.socket.close()

    served(redis_url, work)
    assert (len(counts), max(counts)) == (20, 5)


def test_half_a_request_is_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(front, "REQUEST_SECONDS", 0.5)

    def work(url: str) -> None:
        for part in (b"G", ONE[:-2], LONG[:-2], MANY[:-2]):
            with RawClient(url) as client:
                client.ask(LONG)
                answer = client.ask(part)
                assert (answer.status, answer.json["type"]) == (408, "urn:scoreline:problem:request-timeout")
                assert client.ended()

    served(redis_url, work)


def test_an_idle_connection_ends(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    monkeypatch.setattr(front, "IDLE_SECONDS", 0.5)

    def work(url: str) -> None:
        with RawClient(url) as client, RawClient(url) as other:
            assert client.ask(ONE).status == 200
            assert client.ended()
            assert other.ended()

    served(redis_url, work)


def test_a_client_that_takes_no_answers_is_given_up(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, store: Store
) -> None:
    monkeypatch.setattr(front, "TAKE_SECONDS", 0.5)
    body = json.dumps({"keys": ["a"] * 1000}).encode()

    def work(url: str) -> None:
        with RawClient(url) as client, RawClient(url) as other:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
            with pytest.raises(ConnectionError):
                client.socket.sendall(post("/v1/scores/front", body) * 10_000)
            assert other.ask(ONE).status == 200

    served(redis_url, work)


def test_an_answer_that_takes_too_long_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, redis_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(intake, "ANSWER_SECONDS", 0.3)
    ids = []

    async def slow(self: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr("serving.reader.Reader.live", slow)

    def work(url: str) -> None:
        with RawClient(url) as client:
            answer = client.ask(get("/v1/pipelines"))
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json["type"] == "urn:scoreline:problem:unavailable"
            assert client.ask(ONE).status == 200
            ids.append(answer.headers["x-request-id"])
            assert answer.json["request_id"] == ids[0]

    served(redis_url, work)
    (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines() if ids[0] in line]
    assert (line["route"], line["status"]) == ("/v1/pipelines", 503)
