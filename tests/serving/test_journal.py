"""What is written down: one line a request, numbers for Prometheus, and an id that leads from an answer to the log."""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.store import Store
from serving.web import logs
from serving.web.intake import REQUEST_ID
from serving.web.journal import Ended, Journal
from serving.web.logs import BulkWriter
from tests.conftest import free_port
from tests.serving.conftest import process_at, service_at
from tests.serving.publishing import publish
from tests.serving.raw import RawClient, get, post


@dataclass(frozen=True)
class Logged:
    """A service and its log."""

    url: str
    log: Path

    def lines(self, request_id: str) -> list[dict[str, Any]]:
        """Return the lines of a request, once there are some."""
        deadline = time.monotonic() + 20
        while True:
            lines = [json.loads(line) for line in self.log.read_text().splitlines() if request_id in line]
            if lines:
                return lines
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def logged(store: Store, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    publish(store, "logged", 1, {"a": 0.5, "b": 0.25})
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("wb") as log, service_at(redis_url, log=log) as url:
        httpx.get(f"{url}/v1/scores/logged/a")
        yield Logged(url, path)


REQUESTS = {
    "one": (get("/v1/scores/logged/a"), "GET", "/v1/scores/{pipeline}/{key}", 200, 1),
    "one, the long way": (get("/v1/scores/logged/a", "TE: a"), "GET", "/v1/scores/{pipeline}/{key}", 200, 1),
    "many": (post("/v1/scores/logged", b'{"keys": ["a", "b", "?"]}'), "POST", "/v1/scores/{pipeline}", 200, 3),
    "unknown": (get("/v1/scores/logged/%3F"), "GET", "/v1/scores/{pipeline}/{key}", 404, 1),
    "refused": (get("/v1/scores/logged/a?max_age=x"), "GET", "/v1/scores/{pipeline}/{key}", 422, 0),
    "nowhere": (get('/v2/"\\'), "GET", "none", 404, 0),
    "invented": (get("/v1/pipelines").replace(b"GET", b"INVENTED"), "other", "/v1/pipelines", 405, 0),
    "no HTTP": (b"\x00\r\n\r\n", "other", "none", 400, 0),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_every_request_has_a_line_under_the_id_of_its_answer(logged: Logged, case: str) -> None:
    request, method, route, status, keys = REQUESTS[case]
    with RawClient(logged.url) as client:
        answer = client.ask(request)
    (line,) = logged.lines(answer.headers["x-request-id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("ms") > 0
    assert line.pop("request_id") == answer.headers["x-request-id"]
    assert line == {"method": method, "route": route, "status": status, "keys": keys}


@pytest.mark.parametrize("more", [[], ["TE: a"]], ids=["short way", "long way"])
@pytest.mark.parametrize(("given_", "kept"), [("0-a_b.c", True), ("x" * 129, False), ('"', False), ("a b", False)])
def test_a_caller_may_name_its_request(logged: Logged, given_: str, more: list[str], *, kept: bool) -> None:
    with RawClient(logged.url) as client:
        answers = [
            client.ask(get(f"/v1/scores/logged/{key}", f"X-Request-ID: {given_}", *more)) for key in ("a", "%3F")
        ]
    for answer in answers:
        assert (answer.headers["x-request-id"] == given_) == kept
    assert answers[1].json["request_id"] == answers[1].headers["x-request-id"]


def test_ids_are_different(logged: Logged, service_url: str) -> None:
    ids = {httpx.get(f"{url}/healthz").headers["x-request-id"] for url in (logged.url, service_url) for _ in range(20)}
    assert len(ids) == 40
    assert all(REQUEST_ID.fullmatch(each.encode()) for each in ids)


def test_a_fault_is_logged_under_the_id_of_the_request_that_met_it(servers: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as log:
        url = servers.enter_context(service_at(f"redis://127.0.0.1:{free_port()}/0", log=log))
        answer = httpx.get(f"{url}/v1/scores/p/a", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()["request_id"]) == (503, "mine")
    fault = Logged(url, path).lines("mine")[0]
    assert fault["message"].startswith("StoreUnavailable: Redis at 127.0.0.1")


def metric(url: str, name: str) -> float:
    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(name)]
    assert lines, f"no metric {name}"
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_both_ways_count_alike(logged: Logged) -> None:
    names = {
        'scoreline_requests_total{method="GET",route="/v1/scores/{pipeline}/{key}",status="200"}': 2,
        'scoreline_requests_total{method="GET",route="/v1/scores/{pipeline}/{key}",status="404"}': 2,
        'scoreline_requests_total{method="POST",route="/v1/scores/{pipeline}",status="200"}': 2,
        'scoreline_request_seconds_count{route="/v1/scores/{pipeline}/{key}"}': 4,
        'scoreline_request_seconds_bucket{le="+Inf",route="/v1/scores/{pipeline}"}': 2,
        'scoreline_lookups_total{pipeline="logged",source="batch"}': 6,
        'scoreline_lookups_total{pipeline="logged",source="none"}': 4,
    }
    ask_each(logged.url, ["TE: a"])  # so that there is each metric
    before = {name: metric(logged.url, name) for name in names}
    ask_each(logged.url, [])
    ask_each(logged.url, ["TE: a"])
    assert {name: metric(logged.url, name) - before[name] for name in names} == names


def ask_each(url: str, more: list[str]) -> None:
    with RawClient(url) as client:
        client.ask(get("/v1/scores/logged/a", *more))
        client.ask(get("/v1/scores/logged/%3F", *more))
        client.ask(post("/v1/scores/logged", b'{"keys": ["a", "b", "?"]}', *more))


def test_faults_of_redis_are_counted(servers: ExitStack) -> None:
    url = servers.enter_context(service_at(f"redis://127.0.0.1:{free_port()}/0"))
    before = metric(url, "scoreline_store_faults_total")
    httpx.get(f"{url}/v1/scores/p/a")
    assert metric(url, "scoreline_store_faults_total") >= before + 2  # the lookup's, and the scrape's


PAIRS = st.tuples(st.from_regex(REQUEST_ID, fullmatch=True).map(lambda raw: raw.decode()), st.floats(0, 1e6))
ENDED = st.builds(
    lambda when, route, status, keys, pairs: Ended(when, "GET", route, status, keys, *zip(*pairs, strict=True)),
    st.floats(0, 4e9),
    st.sampled_from(["/v1/scores/{pipeline}", "none"]),
    st.integers(100, 599),
    st.integers(0, 10_000),
    st.lists(PAIRS, min_size=1, max_size=5),
)


@given(st.lists(ENDED, max_size=20))
def test_any_request_is_a_line_of_json(ended: list[Ended]) -> None:
    with TemporaryFile() as log:
        journal = Journal(BulkWriter(log.fileno()))
        for one in ended:
            journal.note(one)
        journal.close()
        log.seek(0)
        lines = [json.loads(line) for line in log]
    wanted = [(one_id, one.status, one.keys) for one in ended for one_id in one.ids]
    assert [(line["request_id"], line["status"], line["keys"]) for line in lines] == wanted
    assert sum(journal.requests.values()) == len(wanted)
    assert sum(sum(timings.counts) for timings in journal.timings.values()) == len(wanted)


def test_a_log_that_nobody_reads_holds_nobody_up_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MOST_WAITING", 2**20)
    monkeypatch.setattr(logs, "FLUSH_SECONDS", 0.1)
    reading, writing = os.pipe()
    writer = BulkWriter(writing)
    for _ in range(100):
        writer.write(bytes(2**16))
    writer.close()
    assert 0 < writer.dropped < 100
    os.close(reading)
    writer._thread.join()
    os.close(writing)


def test_faults_that_nobody_reads_hold_nobody_up(store: Store, redis_url: str) -> None:
    publish(store, "unread", 1, {"a": 0.5})
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(2**12))
    os.set_blocking(writing, True)
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as log, process_at(redis_url, log=log) as (url, process):
        with RawClient(url) as client:
            assert client.ask(get("/v1/scores/unread/a")).status == 200
        process.terminate()
        assert process.wait(30) == 0
