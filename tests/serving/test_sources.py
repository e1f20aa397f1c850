"""Where an answer comes from: the generation, the overlay where that is fresher, else the fallback."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis

from serving.blocks import tally
from serving.head import Fallback, Head, Overlay
from serving.keys import overlay_key
from serving.layout import Layout
from serving.overlay import Fresh, OverlayStore
from serving.refusals import Refusal, RefusalStore
from serving.store import Store
from tests.conftest import free_port, redis_at
from tests.serving.conftest import service_at
from tests.serving.publishing import DAY, JUNE_2, arrays, head_for, publish, write

SCORES = {"a": 0.5, "b": 0.25}
PRIOR = Fallback("prior", 0.125, {"new": 0.75})


def go_live(store: Store, pipeline: str, token: int = 1, **changes: Any) -> Head:
    """Make a generation of SCORES live, whatever was before it, with a head that differs from the usual one."""
    head = replace(head_for(pipeline, token, SCORES), **changes)
    head = replace(head, checksum=tally(*arrays(head.layout, SCORES)).checksum)
    write(store, head, SCORES)
    store.register(pipeline)
    assert store.replace(store.record(pipeline), head) == "live"
    return head


@pytest.fixture(scope="module")
def june_3(redis_url: str) -> Iterator[str]:
    """A service for which the generations are a day old."""
    clock = f"{datetime(1998, 6, 3, tzinfo=UTC).isoformat()}@{datetime.now(UTC).isoformat()}"
    with service_at(redis_url, clock) as url:
        yield url


def one(url: str, pipeline: str, key: str, **wishes: Any) -> dict[str, Any]:
    """Return a key's answer, which is the same alone and in a batch."""
    alone = httpx.get(f"{url}/v1/scores/{pipeline}/{quote(key)}", params=wishes)
    (answer,) = httpx.post(f"{url}/v1/scores/{pipeline}", json={"keys": [key], **wishes}).json()["answers"]
    told: dict[str, Any] = alone.json()
    for each in (told, answer, answer.get("problem", {})):
        each.pop("age_seconds", None)
        each.update({"detail": re.sub(r"\d+ s old", "some s old", each["detail"])} if "detail" in each else {})
        each.pop("request_id", None)
    assert told == answer.get("problem", answer)
    assert alone.status_code == (404 if "problem" in answer else 200)
    return told


@pytest.mark.parametrize("layout", [Layout(buckets=2), Layout(buckets=2, salt=5)], ids=["one hash", "two hashes"])
def test_the_newer_of_generation_and_overlay_answers(store: Store, service_url: str, layout: Layout) -> None:
    pipeline = f"fresher-{layout.salt}"
    head = go_live(store, pipeline, layout=layout, overlay=Overlay(3))
    entries = [("a", JUNE_2 + 1, 0.75), ("b", JUNE_2, 0.875), ("only", JUNE_2 + DAY, 0.0625), ("left", JUNE_2, 0.5)]
    OverlayStore(store).write(head, [Fresh(key, as_of, (score,)) for key, as_of, score in entries])
    found = [one(service_url, pipeline, key) for key in ("a", "b", "only")]
    assert [(told["score"], told["source"], told["as_of"]) for told in found] == [
        (0.75, "stream", "1998-06-02T00:00:00.000001Z"),
        (0.25, "batch", "1998-06-02T00:00:00Z"),
        (0.0625, "stream", "1998-06-03T00:00:00Z"),
    ]
    assert one(service_url, pipeline, "left")["type"].endswith("unknown-key")  # the newer population is without it
    assert {told["generation"] for told in found} == {1}
    assert {told["model"]["version"] for told in found} == {"7"}


def test_entries_of_another_epoch_are_not_seen(store: Store, service_url: str) -> None:
    head = go_live(store, "entries-epochs", overlay=Overlay(3))
    OverlayStore(store).write(head, [Fresh("a", JUNE_2 + 1, (0.75,))])
    assert one(service_url, "entries-epochs", "a")["source"] == "stream"
    go_live(store, "entries-epochs", 2, overlay=Overlay(3), epoch=2)
    assert (one(service_url, "entries-epochs", "a")["source"], one(service_url, "entries-epochs", "a")["score"]) == (
        "batch",
        0.5,
    )


def test_an_overlay_that_cannot_be_read_fails_its_own_keys_alone(
    store: Store, service_url: str, redis_url: str
) -> None:
    head = go_live(store, "damaged", overlay=Overlay(1))
    with redis.Redis.from_url(redis_url) as raw:
        raw.hset(overlay_key("damaged", head.epoch, 0), "a", b"junk")
        answer = httpx.get(f"{service_url}/v1/scores/damaged/a")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:scoreline:problem:corrupt-block")
        assert one(service_url, "damaged", "b")["score"] == 0.25
        raw.delete(overlay_key("damaged", head.epoch, 0))
        raw.set(overlay_key("damaged", head.epoch, 0), b"no hash")
    answer = httpx.get(f"{service_url}/v1/scores/damaged/a")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:scoreline:problem:store-refused")


@pytest.mark.parametrize(("segment", "score"), [(None, 0.125), ("new", 0.75), ("old", 0.125)])
def test_an_unknown_key_has_the_fallback_of_its_segment(
    store: Store, service_url: str, segment: str | None, score: float
) -> None:
    go_live(store, "prior", fallback=PRIOR)
    told = one(service_url, "prior", "?", **({"segment": segment} if segment else {}))
    assert (told["score"], told["source"], told["model"]) == (score, "fallback", None)


def test_a_known_key_has_its_score_whatever_its_segment(store: Store, service_url: str) -> None:
    go_live(store, "prior", fallback=PRIOR)
    assert one(service_url, "prior", "a", segment="new")["score"] == 0.5


def test_what_is_older_than_asked_for_gives_way_to_the_fallback(store: Store, june_3: str) -> None:
    go_live(store, "stale", fallback=PRIOR)
    limits = [timedelta(hours=25), timedelta(hours=23)]
    told = [one(june_3, "stale", "a", max_age=limit.total_seconds(), segment="new") for limit in limits]
    assert [(each["score"], each["source"]) for each in told] == [(0.5, "batch"), (0.75, "fallback")]


def test_what_is_older_than_asked_for_is_a_problem_where_there_is_no_fallback(store: Store, june_3: str) -> None:
    go_live(store, "stale-strict")
    told = one(june_3, "stale-strict", "a", max_age=3600)
    assert (told["type"], told["status"]) == ("urn:scoreline:problem:answer-too-old", 404)
    assert one(june_3, "stale-strict", "?", max_age=3600)["type"] == "urn:scoreline:problem:unknown-key"
    assert one(june_3, "stale-strict", "a", max_age=90_000)["score"] == 0.5


def test_the_overlay_makes_an_answer_fresh_enough(store: Store, june_3: str) -> None:
    head = go_live(store, "stale-overlay", overlay=Overlay(2))
    OverlayStore(store).write(head, [Fresh("a", JUNE_2 + DAY, (0.75,))])
    assert one(june_3, "stale-overlay", "a", max_age=3600)["source"] == "stream"
    assert one(june_3, "stale-overlay", "b", max_age=3600)["type"].endswith("answer-too-old")


@pytest.mark.parametrize("wish", ["max_age=-1", "max_age=nan", "max_age=inf", "max_age=x", f"segment={'x' * 257}"])
def test_a_wish_that_cannot_be_is_refused(store: Store, service_url: str, wish: str) -> None:
    publish(store, "wishes", 1, SCORES)
    answer = httpx.get(f"{service_url}/v1/scores/wishes/a?{wish}")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:scoreline:problem:invalid-request")


def test_why_dates_are_not_live_is_listed_with_the_newest_first(store: Store, service_url: str) -> None:
    go_live(store, "shown-refusals")
    at = datetime(1998, 6, 3, 4, 5, 6, 7, tzinfo=UTC)
    refusals = RefusalStore(store, "shown-refusals")
    decided = JUNE_2 + DAY + 14_706_000_007
    refusals.put(date(1998, 6, 1), Refusal("history only", "day 1", decided))
    refusals.put(date(1998, 6, 3), Refusal("rail breach", "day 3", decided))
    listed = httpx.get(f"{service_url}/v1/pipelines").json()["pipelines"]
    (status,) = [each for each in listed if each["pipeline"] == "shown-refusals"]
    assert status["refusals"] == [
        {"as_of": "1998-06-03", "verdict": "rail breach", "reason": "day 3", "at": at.isoformat()[:-6] + "Z"},
        {"as_of": "1998-06-01", "verdict": "history only", "reason": "day 1", "at": at.isoformat()[:-6] + "Z"},
    ]


def test_a_head_that_was_brought_back_is_noticed_once_and_serves(servers: ExitStack, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    servers.enter_context(redis_at(port, tmp_path))
    redis_url = f"redis://127.0.0.1:{port}/0"
    with log.open("wb") as written, Store(redis_url) as store:
        url = servers.enter_context(service_at(redis_url, log=written))
        first = publish(store, "back", 1, {"a": 0.5})
        assert one(url, "back", "a")["generation"] == 1
        second = publish(store, "back", 2, {"a": 0.75})
        assert one(url, "back", "a")["generation"] == 2
        assert regressions(url) == 0
        assert store.replace(second.to_json(), first) == "live"
        assert [one(url, "back", "a")["generation"] for _ in range(3)] == [1, 1, 1]
        assert regressions(url) == 1
        rolled_back = replace(first, epoch=2)  # as an operator does it: the epoch says that it is meant
        assert store.replace(first.to_json(), rolled_back) == "live"
        assert one(url, "back", "a")["generation"] == 1
        assert regressions(url) == 1
    assert log.read_text().count("HeadRegression of pipeline back") == 1


def regressions(url: str) -> float:
    (line,) = [each for each in httpx.get(f"{url}/metrics").text.splitlines() if each.startswith("scoreline_head_reg")]
    return float(line.split()[1])
