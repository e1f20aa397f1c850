"""The short way and the long way of a lookup give the same answer to the same request."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.apikeys import new_key
from serving.blocks import tally
from serving.head import Fallback, Head, Limits, Overlay
from serving.keys import block_key
from serving.layout import Layout
from serving.overlay import Fresh, OverlayStore
from serving.settings import Settings
from serving.store import Store
from serving.web.quick import INCOMPLETE, UNUSUAL, Quick, Same
from serving.web.service import Service
from tests.serving.publishing import JUNE_2, arrays, head_for, write
from tests.serving.raw import Answer, RawClient, get, post
from tests.serving.test_service import HARD_KEYS

LONG = "TE: trailers"  # says nothing to us, and is not in a plain request
SCORES = {key: (number - 7) / 3 for number, key in enumerate([*HARD_KEYS, "k1", "k2", "k3"])}
FRESH = [Fresh("k1", JUNE_2 + 1, (0.625,)), Fresh("k2", JUNE_2 - 1, (0.125,)), Fresh("only", JUNE_2 + 5, (-1e-30,))]
PIPELINES = ["ways-plain", "ways-constant", "ways-prior", "ways-overlay", "ways-salted", "ways-few", "nobody"]
KEYS = st.sampled_from([*SCORES, "only", "?", "unknown", "x" * 250, "x" * 256, "x" * 257, "é" * 129, ""])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(scope="module")
def heads(store: Store) -> list[Head]:
    """Publish pipelines of all kinds, of which the last has no head."""
    prior = Fallback("prior", 0.1, {"new": 0.3})
    return [
        published(store, "ways-plain"),
        published(store, "ways-constant", fallback=Fallback("constant", 0.125)),
        published(store, "ways-prior", fallback=prior),
        published(store, "ways-overlay", overlay=Overlay(3), layout=Layout(buckets=4)),
        published(store, "ways-salted", overlay=Overlay(3), fallback=prior),
        published(store, "ways-few", limits=Limits(batch=3, key_bytes=8)),
    ]


def published(store: Store, pipeline: str, **changes: Any) -> Head:
    head = replace(head_for(pipeline, 7, SCORES), **changes)
    head = replace(head, checksum=tally(*arrays(head.layout, SCORES)).checksum)
    write(store, head, SCORES)
    store.register(pipeline)
    assert store.replace(None, head) == "live"
    if head.overlay is not None:
        OverlayStore(store).write(head, FRESH)
    return head


@pytest.fixture
def raw(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def connection(service_url: str, heads: list[Head]) -> Iterator[RawClient]:
    with RawClient(service_url) as opened:
        for head in heads:
            opened.ask(get(f"/v1/scores/{head.pipeline}/k1", LONG))  # so that each is known to the short way
        yield opened


def essence(answer: Answer) -> tuple[int, str, Any]:
    """Return what must be the same: all but what each request has of its own."""
    told = answer.json
    assert answer.headers["x-request-id"]
    assert answer.headers["date"].endswith("GMT")
    for one in [told, *told.get("answers", ())]:
        if "age_seconds" in one:
            assert one.pop("age_seconds") > 0
        if one.get("request_id"):
            assert one.pop("request_id") == answer.headers["x-request-id"]
    return answer.status, answer.headers["content-type"], told


def assert_same(connection: RawClient, one: bytes, other: bytes) -> None:
    assert essence(connection.ask(one)) == essence(connection.ask(other))


@given(st.sampled_from(PIPELINES), KEYS | TEXT, st.sampled_from(["", "/", "!$&'()*+,;=:@~", "/?"]))
@settings(max_examples=300)
def test_one_key(connection: RawClient, pipeline: str, key: str, safe: str) -> None:
    target = f"/v1/scores/{pipeline}/{quote(key, safe=safe)}"
    assert_same(connection, get(target), get(target, LONG))


LEAVES = st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT
NAMED = partial(st.dictionaries, st.sampled_from(["keys", "other"]))
BODIES = (
    st.lists(KEYS | TEXT, max_size=12).map(lambda keys: {"keys": keys})
    | st.fixed_dictionaries(
        {"keys": st.lists(KEYS, max_size=5)},
        optional={"segment": st.sampled_from(["new", "old", None]), "max_age": st.sampled_from([0, 1e12, None, -1])},
    )
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | TEXT, lambda part: st.lists(part) | NAMED(part)
    )
)


@given(st.sampled_from(PIPELINES), BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=30))
@example("ways-plain", json.dumps({"keys": ["a"] * 1001}).encode())
@example("ways-plain", b'{"keys": ["\\ud800"]}')
@example("ways-plain", b'{"keys": ["\xff"]}')
@example("ways-plain", b'{"keys": ["a"], "keys": ["k1"]}')
@example("ways-plain", '{"keys": ["k1"]}'.encode("utf-16"))
@example("ways-plain", b'\xef\xbb\xbf{"keys": ["k1"]}')
@example("ways-plain", b"[" * 100_000)
@example("ways-few", b'{"keys": ["k1", "k2", "k3", "k1"]}')
@settings(max_examples=300)
def test_several_keys(connection: RawClient, pipeline: str, body: bytes) -> None:
    target = f"/v1/scores/{pipeline}"
    assert_same(connection, post(target, body), post(target, body, LONG))


class Nowhere:
    """A connection that leads nowhere, and keeps the answers."""

    last = False
    same: Same | None = None

    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def reply(self, answer: bytes) -> None:
        """Keep it."""
        self.answers.append(answer)


TAKEN = {
    "a key": get("/v1/scores/ways-plain/k1"),
    "a key percent-encoded": get("/v1/scores/ways-plain/%6b%31%2F%00"),
    "a request id": get("/v1/scores/ways-plain/k1", "X-Request-ID: 0-a_b.c"),
    "usual headers": get("/v1/scores/ways-plain/k1", "Connection: keep-alive", "Accept: */*", "User-Agent: any (1.0)"),
    "keys": post("/v1/scores/ways-plain", b'{"keys": ["k1", "\xc3\xa9"]}'),
}
CHUNKS = b'10\r\n{"keys": ["k1"]}\r\n0\r\n\r\n'
LENGTH = b"Content-Length: %d" % len(CHUNKS)
PLAIN = get("/v1/scores/ways-plain/k2")
UNTAKEN = {
    "a query": (get("/v1/scores/ways-plain/k1?max_age=3"), 404),
    "another path": (get("/v1/pipelines"), 200),
    "a pipeline that was never asked for": (get("/v1/scores/other/k1"), 404),
    "an empty key": (get("/v1/scores/ways-plain/"), 422),
    "half a character": (get("/v1/scores/ways-plain/%ff"), 422),
    "the end of the connection": (get("/v1/scores/ways-plain/k1", "Connection: close"), 200),
    "another version": (get("/v1/scores/ways-plain/k1").replace(b"1.1", b"1.0", 1), 200),
    "no host": (get("/v1/scores/ways-plain/k1").replace(b"Host", b"Most", 1), 400),
    "two hosts": (get("/v1/scores/ways-plain/k1", "Host: other"), 400),
    "a body behind a GET": (get("/v1/scores/ways-plain/k1", "Content-Length: 1") + b"x", 200),
    "chunks": (post("/v1/scores/ways-plain", CHUNKS).replace(LENGTH, b"Transfer-Encoding: chunked"), 200),
    "a folded header": (get("/v1/scores/ways-plain/k1", "Accept: a", " b"), 200),
    "an id that needs escaping": (get("/v1/scores/ways-plain/k1", 'X-Request-ID: "'), 200),
    "no JSON type": (post("/v1/scores/ways-plain", b'{"keys": ["k1"]}').replace(b"n/json", b"n/text"), 422),
    "another field": (post("/v1/scores/ways-plain", b'{"keys": ["k1"], "segment": "a"}'), 200),
    "no keys": (post("/v1/scores/ways-plain", b'{"keys": []}'), 200),
}


def taken(redis_url: str, *requests: bytes, keys: Path | None = None, revoked: bool = False) -> int:
    """Return what comes of the last of some requests on one connection, before which keys may be revoked."""

    async def take() -> int:
        service = Service.by(Settings(redis_url=redis_url, api_keys_file=keys))
        quick, front = Quick(service), Nowhere()
        try:
            await service.reader.lookup("ways-plain", ["k1"])
            for before in requests[:-1]:
                assert quick.take(front, before) == len(before)
            if revoked:
                service.keyring.callers = {}
            return quick.take(front, requests[-1])
        finally:
            await service.close()

    return asyncio.run(take())


@pytest.mark.parametrize("case", TAKEN)
def test_a_plain_request_goes_the_short_way(heads: list[Head], redis_url: str, case: str) -> None:
    assert taken(redis_url, TAKEN[case] + b"what comes behind") == len(TAKEN[case])


@pytest.mark.parametrize("case", TAKEN)
def test_a_plain_request_is_waited_for_until_it_is_whole(heads: list[Head], redis_url: str, case: str) -> None:
    whole = len(TAKEN[case])
    assert {taken(redis_url, TAKEN[case][:length]) for length in (20, 45)} == {INCOMPLETE}
    assert taken(redis_url, TAKEN[case][: whole - 1]) == (-whole if case == "keys" else INCOMPLETE)


@pytest.mark.parametrize("case", UNTAKEN)
def test_an_unusual_request_goes_the_long_way(heads: list[Head], redis_url: str, case: str) -> None:
    assert taken(redis_url, UNTAKEN[case][0]) == UNUSUAL


@pytest.mark.parametrize("case", UNTAKEN)
def test_it_does_so_after_a_plain_one_too(heads: list[Head], redis_url: str, case: str) -> None:
    assert taken(redis_url, PLAIN, UNTAKEN[case][0]) == UNUSUAL


@pytest.mark.parametrize("case", TAKEN)
def test_after_a_plain_request_each_other_is_taken_for_what_it_is(heads: list[Head], redis_url: str, case: str) -> None:
    whole = len(TAKEN[case])
    assert taken(redis_url, PLAIN, TAKEN[case]) == whole
    assert taken(redis_url, PLAIN, TAKEN[case] + PLAIN) == whole
    assert taken(redis_url, PLAIN, TAKEN[case][: whole - 1]) < 0


def test_a_key_is_looked_at_again_in_each_request(heads: list[Head], redis_url: str, tmp_path: Path) -> None:
    secret, line = new_key("caller", ["ways-plain"])
    keys, request = tmp_path / "keys", get("/v1/scores/ways-plain/k1", f"X-API-Key: {secret}")
    keys.write_text(line)
    assert taken(redis_url, request, request, keys=keys) == len(request)
    assert taken(redis_url, request, request, keys=keys, revoked=True) == UNUSUAL


@pytest.mark.parametrize("case", UNTAKEN)
def test_what_is_unusual_is_answered_all_the_same(service_url: str, heads: list[Head], case: str) -> None:
    request, status = UNTAKEN[case]
    with RawClient(service_url) as opened:
        assert opened.ask(request).status == status


def in_one_turn(redis_url: str, keys: list[str]) -> list[bytes]:
    """Return the answers to lookups of "ways-plain" that come in one turn of the event loop."""

    async def session() -> list[bytes]:
        service = Service.by(Settings(redis_url=redis_url))
        quick, fronts = Quick(service), [Nowhere() for _ in keys]
        try:
            await service.reader.heads.resolve("ways-plain")
            for front, key in zip(fronts, keys, strict=True):
                assert quick.take(front, get(f"/v1/scores/ways-plain/{key}")) > 0
            async with asyncio.timeout(20):
                while not all(front.answers for front in fronts):
                    await asyncio.sleep(0.01)
        finally:
            await service.close()
        return [answer for front in fronts for answer in front.answers]

    return asyncio.run(session())


def test_lookups_of_one_turn_share_a_round_trip_and_have_their_own_answers(
    heads: list[Head], redis_url: str, raw: "redis.Redis"
) -> None:
    raw.config_resetstat()
    answers = in_one_turn(redis_url, ["k1", "unknown", "k2", "k1"])
    assert raw.info("commandstats")["cmdstat_mget"]["calls"] == 1
    found = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [each.get("key", each.get("type", "")) for each in found] == [
        "k1",
        "urn:scoreline:problem:unknown-key",
        "k2",
        "k1",
    ]
    assert [np.float32(found[place]["score"]) for place in (0, 2, 3)] == [
        np.float32(SCORES[key]) for key in ("k1", "k2", "k1")
    ]


@pytest.mark.parametrize("damage", [b"junk", None], ids=["corrupt", "missing"])
def test_a_damaged_block_fails_none_but_its_own_keys(
    heads: list[Head], redis_url: str, raw: "redis.Redis", damage: bytes | None
) -> None:
    layout = heads[0].layout
    bucket = layout.bucket_of(layout.hash_of("k1"))
    name = block_key("ways-plain", 7, bucket)
    sound = cast("bytes", raw.get(name))
    try:
        raw.delete(name) if damage is None else raw.set(name, damage)
        others = [
            key for key in SCORES if key.isalnum() and key.isascii() and layout.bucket_of(layout.hash_of(key)) != bucket
        ][:3]
        statuses = [answer.split()[1] for answer in in_one_turn(redis_url, [*others, "k1", *others])]
    finally:
        raw.set(name, sound)
    assert others
    assert statuses == [b"200"] * len(others) + [b"503"] + [b"200"] * len(others)
