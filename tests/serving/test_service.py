"""The lookup service as a real process over HTTP: answers, refusals, outages."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.answers import Missing, ModelVersion, Score
from serving.blocks import pack
from serving.client import Client
from serving.errors import ServiceError
from serving.layout import Layout
from serving.refusals import Refusal, RefusalStore
from serving.store import Store
from tests.conftest import ROOT, free_port, redis_at, stop
from tests.serving.conftest import service_at
from tests.serving.publishing import JUNE_2, head_for, publish

HARD_KEYS = [
    "0042",
    "a/b",
    "/a//b/",
    ".",
    "..",
    "a/../b",
    "%2F",
    "a b+c",
    "?q=1#f",
    "ключ",
    "🙂",
    "\x00",
    "\n",
    "a",
    "a\n",
    "a\nb",
    '"\\',
]
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=30)
@given(scores=st.dictionaries(KEYS, FLOATS, min_size=1, max_size=40))
def test_every_key_has_its_score_alone_and_in_a_batch(store: Store, client: Client, scores: dict[str, float]) -> None:
    check_all(store, client, scores)


def test_hard_keys_have_their_scores(store: Store, client: Client) -> None:
    check_all(store, client, {key: float(np.float32(number / 7)) for number, key in enumerate(HARD_KEYS)})


def check_all(store: Store, client: Client, scores: dict[str, float]) -> None:
    live = store.head("roundtrip")
    publish(store, "roundtrip", live.token + 1 if live else 1, scores)
    alone = {key: client.score("roundtrip", key) for key in scores}
    for answer, key in zip(client.scores("roundtrip", scores), scores, strict=True):
        assert isinstance(answer, Score)
        assert (answer.key, answer.score, alone[key].score) == (key, scores[key], scores[key])


def test_an_answer_says_where_it_comes_from(store: Store, client: Client) -> None:
    publish(store, "fields", 5, {"a": 0.5})
    answer = client.score("fields", "a")
    expected = ("a", 0.5, datetime(1998, 6, 2, tzinfo=UTC), "batch", 5, ModelVersion(name="propensity", version="7"))
    assert (answer.key, answer.score, answer.as_of, answer.source, answer.generation, answer.model) == expected


def test_the_score_is_the_column_of_that_name(store: Store, client: Client) -> None:
    layout = Layout(buckets=1, columns=(("rank", "int32"), ("score", "float32")))
    head = replace(head_for("named", 1, {"a": 0.5}), layout=layout)
    columns = [np.array([7], np.int32), np.array([0.5], np.float32)]
    store.write_blocks("named", 1, [(0, pack(layout, 1, np.array([layout.hash_of("a")], np.uint64), columns))])
    assert store.replace(None, head) == "live"
    assert client.score("named", "a").score == 0.5


def test_as_of_is_written_in_utc(store: Store, service_url: str) -> None:
    publish(store, "written", 1, {"a": 0.5})
    assert httpx.get(f"{service_url}/v1/scores/written/a").json()["as_of"] == "1998-06-02T00:00:00Z"


def test_the_age_is_by_the_set_clock(store: Store, redis_url: str, servers: ExitStack) -> None:
    publish(store, "aged", 1, {"a": 0.5})
    url = servers.enter_context(service_at(redis_url, f"1998-06-02T06:00:00Z@{datetime.now(UTC).isoformat()}"))
    with Client(url) as client:
        six_hours = timedelta(hours=6).total_seconds()
        assert six_hours <= client.score("aged", "a").age_seconds < six_hours + 60
        [status] = [status for status in client.pipelines() if status.pipeline == "aged"]
        assert six_hours <= status.age_seconds < six_hours + 60


def test_an_unknown_key_has_the_declared_fallback(store: Store, client: Client) -> None:
    publish(store, "falling", 1, {"a": 0.5}, fallback=0.125)
    answer = client.score("falling", "?")
    assert (answer.score, answer.source, answer.generation, answer.model) == (0.125, "fallback", 1, None)
    assert [found.source for found in client.scores("falling", ["?", "a"]) if isinstance(found, Score)] == [
        "fallback",
        "batch",
    ]


def test_an_unknown_key_without_a_fallback_is_404_alone_and_on_its_own_in_a_batch(store: Store, client: Client) -> None:
    publish(store, "strict", 1, {"a": 0.5})
    with pytest.raises(ServiceError, match="no score for '\\?'") as refused:
        client.score("strict", "?")
    assert (refused.value.status, refused.value.code) == (404, "unknown-key")
    first, second, third = client.scores("strict", ["?", "a", "é" * 129])
    assert isinstance(first, Missing)
    assert (first.key, first.problem.status) == ("?", 404)
    assert isinstance(second, Score)
    assert isinstance(third, Missing)
    assert third.problem.detail.startswith("a key of 258 bytes")


def test_a_client_splits_what_is_more_than_one_request(store: Store, client: Client) -> None:
    scores = {f"k{number}": float(number) for number in range(2_500)}
    publish(store, "many", 1, scores)
    found = [answer.score for answer in client.scores("many", scores) if isinstance(answer, Score)]
    assert found == list(scores.values())
    assert list(client.scores("many", [])) == []


REFUSED = {
    "unknown pipeline": ("GET", "/v1/scores/nobody/a", b"", 404, "unknown-pipeline"),
    "name of no pipeline": ("GET", "/v1/scores/%7Bx%7D/a", b"", 404, "unknown-pipeline"),
    "no such path": ("GET", "/v2", b"", 404, "not-found"),
    "method": ("DELETE", "/v1/pipelines", b"", 405, "method-not-allowed"),
    "empty key": ("GET", "/v1/scores/refusing/", b"", 422, "key-refused"),
    "key not UTF-8": ("GET", "/v1/scores/refusing/%FF", b"", 422, "key-refused"),
    "line break in the name": ("GET", "/v1/scores/refusing%0A/a", b"", 404, "unknown-pipeline"),
    "long key": ("GET", f"/v1/scores/refusing/{'x' * 257}", b"", 422, "key-refused"),
    "too many keys": ("POST", "/v1/scores/refusing", json.dumps({"keys": ["a"] * 1001}).encode(), 422, "too-many-keys"),
    "no JSON": ("POST", "/v1/scores/refusing", b"{", 422, "invalid-request"),
    "no keys": ("POST", "/v1/scores/refusing", b"{}", 422, "invalid-request"),
    "a number for a key": ("POST", "/v1/scores/refusing", b'{"keys": [1]}', 422, "invalid-request"),
    "half a character": ("POST", "/v1/scores/refusing", b'{"keys": ["\\ud800"]}', 422, "invalid-request"),
    "not UTF-8": ("POST", "/v1/scores/refusing", b'{"keys": ["\xff"]}', 400, "bad-request"),
    "huge body": ("POST", "/v1/scores/refusing", bytes(3_000_000), 413, "request-entity-too-large"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_a_problem_document(store: Store, service_url: str, case: str) -> None:
    publish(store, "refusing", next_token(store, "refusing"), {"a": 0.5})
    method, path, body, status, code = REFUSED[case]
    response = httpx.request(method, service_url + path, content=body, headers={"Content-Type": "application/json"})
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["status"], problem["type"]) == (
        status,
        status,
        f"urn:scoreline:problem:{code}",
    )
    assert problem["detail"]


def next_token(store: Store, pipeline: str) -> int:
    live = store.head(pipeline)
    return live.token + 1 if live else 1


def test_pipelines_are_listed_with_what_is_live(store: Store, client: Client) -> None:
    publish(store, "listed", 3, {"a": 0.5, "b": 1.0}, fallback=0.25)
    [status] = [status for status in client.pipelines() if status.pipeline == "listed"]
    assert (status.generation, status.rows, status.fallback, status.max_keys, status.run_id) == (
        3,
        2,
        0.25,
        1000,
        "run",
    )


def test_a_pipeline_of_which_nothing_is_live_yet_is_listed_with_why(store: Store, service_url: str) -> None:
    """Where on-call looks first: its first publication broke a rail, say."""
    store.register("waiting")
    RefusalStore(store, "waiting").put(date(1998, 6, 2), Refusal("rail breach", "500 scores", JUNE_2))
    answer = httpx.get(f"{service_url}/v1/pipelines").json()
    assert "waiting" not in [one["pipeline"] for one in answer["pipelines"]]
    [waiting] = [one for one in answer["not_live"] if one["pipeline"] == "waiting"]
    [refusal] = waiting["refusals"]
    assert refusal == {
        "as_of": "1998-06-02",
        "verdict": "rail breach",
        "reason": "500 scores",
        "at": "1998-06-02T00:00:00Z",
    }
    publish(store, "waiting", 1, {"a": 0.5})
    answer = httpx.get(f"{service_url}/v1/pipelines").json()
    assert "waiting" not in [one["pipeline"] for one in answer["not_live"]]


def test_metrics_count_requests_and_keys_by_source(store: Store, client: Client, service_url: str) -> None:
    publish(store, "measured", 1, {"a": 0.5})
    list(client.scores("measured", ["a", "?", "a"]))
    assert httpx.request("INVENTED", f"{service_url}/v1/pipelines").status_code == 405
    text = httpx.get(f"{service_url}/metrics").text
    assert 'scoreline_requests_total{method="other",route="/v1/pipelines",status="405"} 1.0' in text
    assert 'scoreline_lookups_total{pipeline="measured",source="batch"} 2.0' in text
    assert 'scoreline_lookups_total{pipeline="measured",source="none"} 1.0' in text
    assert 'scoreline_requests_total{method="POST",route="/v1/scores/{pipeline}",status="200"}' in text
    assert 'scoreline_request_seconds_count{route="/v1/scores/{pipeline}"}' in text
    assert 'scoreline_generation_age_seconds{pipeline="measured"}' in text
    assert "scoreline_store_up 1.0" in text


def test_openapi_describes_answers_and_problems(service_url: str) -> None:
    document = httpx.get(f"{service_url}/openapi.json").json()
    single = document["paths"]["/v1/scores/{pipeline}/{key}"]["get"]["responses"]
    assert single["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Score")
    assert set(single) == {"200", "404", "422", "503"}
    assert list(single["404"]["content"]) == ["application/problem+json"]
    assert "Problem" in document["components"]["schemas"]
    assert httpx.get(f"{service_url}/docs").status_code == 200


def test_without_redis_it_answers_503_and_comes_back_by_itself(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    url = servers.enter_context(service_at(f"redis://127.0.0.1:{port}/0", "real"))
    assert_unavailable(url)
    first = servers.enter_context(redis_at(port, tmp_path))
    with Store(f"redis://127.0.0.1:{port}/0") as store:
        publish(store, "back", 1, {"a": 0.5})
    assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/v1/scores/back/a").status_code == 200
    first.send_signal(signal.SIGSTOP)  # answers nothing, closes nothing
    assert_unavailable(url)
    first.send_signal(signal.SIGCONT)
    assert httpx.get(f"{url}/v1/scores/back/a").status_code == 200
    stop(first)
    assert_unavailable(url)


def assert_unavailable(url: str) -> None:
    started = time.monotonic()
    for path in ("/v1/scores/back/a", "/v1/pipelines", "/readyz"):
        response = httpx.get(url + path)
        assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
        assert response.headers["Content-Type"] == "application/problem+json"
        assert "127.0.0.1" not in response.text
    assert time.monotonic() - started < 10
    assert httpx.get(f"{url}/healthz").status_code == 200
    assert "scoreline_store_up 0.0" in httpx.get(f"{url}/metrics").text


def test_settings_that_cannot_be_used_end_it_with_one_line() -> None:
    command = [sys.executable, "-m", "serving"]
    environment = {**os.environ, "SCORELINE_CLOCK": "noon"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("scoreline: error: SCORELINE_CLOCK: ")
    assert ended.stderr.count("\n") == 1
