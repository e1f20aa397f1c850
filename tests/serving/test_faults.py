"""What a caller learns when the store is damaged, and what stays readable beside the damage."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from fastapi.exceptions import RequestValidationError

from serving.head import Head
from serving.keys import PIPELINES, block_key, head_key
from serving.question import Question
from serving.reader import Reader
from serving.settings import Settings
from serving.store import Store
from serving.web.problems import _document
from serving.web.service import Service, create
from serving.web.template import Template
from tests.conftest import free_port, redis_at
from tests.serving.conftest import service_at
from tests.serving.inside import served
from tests.serving.publishing import publish
from tests.serving.raw import RawClient, get, post
from tests.serving.topologies import await_true

INSIDES = re.compile(r"127\.0\.0\.1|localhost|site-packages|\.py|Traceback|scoreline:\{|secret")
SCORES = {key: number / 64 for number, key in enumerate("abcdefghijklmnop")}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def raw(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def any_service_url(any_place: Callable[[str], str]) -> Iterator[str]:
    with service_at(any_place("reader")) as url:
        yield url


def block(head: Head) -> str:
    return block_key(head.pipeline, head.token, 0)


def bucket_of(head: Head, key: str) -> int:
    return head.layout.bucket_of(head.layout.hash_of(key))


def no_block(store: Store, head: Head) -> None:
    store.unlink([block(head)])


def a_block_of_junk(store: Store, head: Head) -> None:
    store.write_blocks(head.pipeline, head.token, [(0, b"secret junk")])


def a_head_of_junk(store: Store, head: Head) -> None:
    store.ask("SET", head_key(head.pipeline), b'{"secret": ')


def a_head_of_another_type(store: Store, head: Head) -> None:
    store.unlink([head_key(head.pipeline)])
    store.ask("HSET", head_key(head.pipeline), "token", "1")


DAMAGES: dict[str, Callable[[Store, Head], object]] = {
    "torn-generation": no_block,
    "corrupt-block": a_block_of_junk,
    "unreadable-head": a_head_of_junk,
    "store-refused": a_head_of_another_type,
}
OF_ITS_KEYS = {"torn-generation", "corrupt-block"}
WAYS = {"short": {}, "long": {"TE": "trailers"}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", DAMAGES)
def test_a_damaged_store_is_a_problem_to_retry_that_shows_no_insides(
    any_store: Store, any_service_url: str, code: str, way: str
) -> None:
    head = publish(any_store, code, 1, SCORES)
    target = f"{any_service_url}/v1/scores/{code}"
    httpx.get(f"{target}/a")  # so that the short way knows it
    DAMAGES[code](any_store, head)
    hit, sound = (next(key for key in SCORES if (bucket_of(head, key) == 0) is damaged) for damaged in (True, False))
    single = httpx.get(f"{target}/{hit}", headers=WAYS[way])
    batch = httpx.post(target, json={"keys": [sound, hit]}, headers=WAYS[way])
    any_store.unlink([head_key(code)])
    if code in OF_ITS_KEYS:
        assert batch.status_code == 200
        whole, missing = batch.json()["answers"]
        assert (whole["key"], whole["score"]) == (sound, SCORES[sound])
        assert (missing["key"], missing["problem"]["type"]) == (hit, f"urn:scoreline:problem:{code}")
        assert missing["problem"]["status"] == 503
        assert not INSIDES.search(batch.text)
    for answer in [single] if batch.status_code == 200 else [single, batch]:
        told = (answer.status_code, answer.json()["type"], answer.headers["Retry-After"])
        assert told == (503, f"urn:scoreline:problem:{code}", "1")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert not INSIDES.search(answer.text)


def test_keys_that_cannot_be_read_are_counted_as_such_by_both_ways(
    store: Store, service_url: str, raw: "redis.Redis"
) -> None:
    raw.delete(block(publish(store, "faults-counted", 1, {"a": 0.5})))
    counted = 'scoreline_lookups_total{pipeline="faults-counted",source="fault"}'
    for headers in WAYS.values():
        httpx.get(f"{service_url}/v1/scores/faults-counted/a", headers=headers)
        httpx.post(f"{service_url}/v1/scores/faults-counted", json={"keys": ["a", "b"]}, headers=headers)
    assert f"{counted} 6" in httpx.get(f"{service_url}/metrics").text


def test_a_fault_of_our_own_shows_no_insides(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret of serving/reader.py at 127.0.0.1")

    async def ask() -> httpx.Response:
        service = Service.by(Settings())
        transport = httpx.ASGITransport(create(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            answer = await client.get("/v1/scores/p/a")
        await service.close()
        return answer

    monkeypatch.setattr(Reader, "lookup", broken)
    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:scoreline:problem:internal")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not INSIDES.search(answer.text)


@pytest.mark.parametrize("place", [(Question, "begin"), (Question, "read"), (Template, "told")], ids=str)
def test_a_fault_that_nobody_foresaw_is_answered_at_once(
    redis_url: str, store: Store, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    publish(store, "unforeseen", 1, SCORES)
    sound = getattr(*place)

    def broken(*given: Any) -> object:
        if "k" in (given[1] if place[0] is Template else given[0].keys):
            raise RuntimeError("secret of serving/reader.py at 127.0.0.1")
        return sound(*given)

    def work(url: str) -> None:
        target = f"{url}/v1/scores/unforeseen"
        assert httpx.get(f"{target}/a").status_code == 200
        answers = [httpx.get(f"{target}/k"), httpx.post(target, json={"keys": ["a", "k"]})]
        if place[0] is not Template:  # which is the short way's
            answers.append(httpx.get(f"{target}/k", headers=WAYS["long"]))
        for answer in answers:
            assert (answer.status_code, answer.json()["type"]) == (500, "urn:scoreline:problem:internal")
            assert not INSIDES.search(answer.text)
        assert httpx.get(f"{target}/a").status_code == 200

    monkeypatch.setattr(*place, broken)
    served(redis_url, work)


@pytest.mark.parametrize("keys", [b"1," * 1_000_000 + b"1", b'"a",' * 400_000 + b'"a"'], ids=["numbers", "keys"])
def test_a_body_full_of_faults_is_refused_in_few_words(service_url: str, keys: bytes) -> None:
    answer = httpx.post(f"{service_url}/v1/scores/any", content=b'{"keys": [' + keys + b"]}", headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:scoreline:problem:invalid-request")
    assert len(answer.content) < 500


REMEDIES = {
    "nowhere": (get("/v2"), "/docs shows which paths there are"),
    "another method": (get("/v1/pipelines").replace(b"GET", b"PUT"), "/docs shows which methods it takes"),
    "no UTF-8": (post("/v1/scores/remedied", b'{"keys": ["\xff"]}'), "send JSON in UTF-8"),
    "no keys": (post("/v1/scores/remedied", b"{}"), "/docs shows what a request may hold"),
    "no HTTP": (b"\x00\r\n\r\n", "send HTTP/1.1"),
    "an unknown key": (get("/v1/scores/remedied/x"), "correct the key, or declare a fallback"),
    "too old": (get("/v1/scores/remedied/a?max_age=1"), "allow a larger max_age"),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_a_refusal_says_what_to_do(store: Store, service_url: str, case: str) -> None:
    request, remedy = REMEDIES[case]
    live = store.head("remedied")
    publish(store, "remedied", live.token + 1 if live else 1, {"a": 0.5})
    with RawClient(service_url) as client:
        assert remedy in client.ask(request).json["detail"]


def test_of_many_faults_a_few_are_told() -> None:
    fault = RequestValidationError([{"loc": ("body", number), "msg": "wrong"} for number in range(10)])
    assert _document(fault, "id").detail == (
        "body.0: wrong; body.1: wrong; body.2: wrong; and 7 more: /docs shows what a request may hold"
    )


def test_an_unreadable_head_hides_no_other(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    servers.enter_context(redis_at(port, tmp_path))
    service = servers.enter_context(service_at(url, "real"))
    with Store(url) as store, redis.Redis.from_url(url) as raw:
        publish(store, "good", 1, {"a": 0.5})
        raw.set(head_key("junk"), b"junk")
        raw.hset(head_key("typed"), "a", "b")
        raw.sadd(PIPELINES, "junk", "typed", "registered", b"\xff")
    assert [each["pipeline"] for each in httpx.get(f"{service}/v1/pipelines").json()["pipelines"]] == ["good"]
    metrics = httpx.get(f"{service}/metrics").text
    assert "scoreline_unreadable_heads 2.0" in metrics
    assert "scoreline_store_up 1.0" in metrics
    assert 'scoreline_generation_age_seconds{pipeline="good"}' in metrics


def test_a_redis_that_refuses_the_user_is_up(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--requirepass", "secret"))
    service = servers.enter_context(service_at(f"redis://:wrong@127.0.0.1:{port}/0", "real"))
    refused = httpx.get(f"{service}/readyz")
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:scoreline:problem:store-refused")
    assert "scoreline_store_up 1.0" in httpx.get(f"{service}/metrics").text


def test_an_outage_is_logged_once_in_a_while_with_time_and_level(servers: ExitStack, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        service = servers.enter_context(service_at(f"redis://127.0.0.1:{free_port()}/0", "real", stderr))
        answers = [httpx.get(f"{service}/v1/scores/p/a") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [503] * 5
    await_true(lambda: "StoreUnavailable" in log.read_text())
    lines = [line for line in log.read_text().splitlines() if "StoreUnavailable" in line]
    assert len(lines) <= 2  # a slow machine may need more than one interval
    line = json.loads(lines[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (line["level"], line["logger"]) == ("WARNING", "serving.web.problems")
    assert line["message"].startswith("StoreUnavailable: Redis at 127.0.0.1")
    assert line["request_id"] == answers[0].headers["X-Request-ID"] == answers[0].json()["request_id"]
