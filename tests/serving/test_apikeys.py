"""API keys: made once, kept as digests, read again when their file changes, and asked for before anything else."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.apikeys import ALL, KeyRing, new_key
from serving.errors import CallerUnknown, KeyLineRefused, SettingsError
from serving.store import Store
from serving.web.traits import MOST_BYTES, TraitsCache, traits_of
from tests.conftest import ROOT, free_port
from tests.serving.conftest import service_at
from tests.serving.publishing import publish
from tests.serving.raw import RawClient, get, post

KEY, LINE = new_key("web", ["keyed"])
EVERY, EVERY_LINE = new_key("operator", [ALL])
OPEN = "0.0.0.0"  # noqa: S104  reason: that it listens there is what is tested
BARE = ["/v1/scores/keyed/a", "/v1/scores/nobody/a", "/v1/pipelines", "/v1/nothing"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.jsonl"
    path.write_text(f"# apps\n{LINE}\n\n{EVERY_LINE}\n")
    return path


@pytest.fixture(scope="module")
def guarded(store: Store, redis_url: str, keys: Path) -> Iterator[str]:
    publish(store, "keyed", 1, {"a": 0.5})
    publish(store, "unkeyed", 1, {"a": 0.5})
    store.register("unkeyed-yet")
    with service_at(redis_url, host=OPEN, api_keys_file=str(keys)) as url:
        for pipeline in ("keyed", "unkeyed"):
            httpx.get(f"{url}/v1/scores/{pipeline}/a", headers={"X-API-Key": EVERY})  # the short way knows them now
        yield url


@pytest.mark.parametrize(
    "header",
    [f"Authorization: Bearer {KEY}", f"authorization: bearer {KEY}", f"X-API-Key: {KEY}"],
    ids=["bearer", "lower case", "own header"],  # the key is another one in each process
)
def test_a_key_opens_its_pipelines_and_no_others(guarded: str, header: str) -> None:
    with RawClient(guarded) as client:
        for more in ([], ["TE: trailers"]):
            assert client.ask(get("/v1/scores/keyed/a", header, *more)).status == 200
            assert client.ask(post("/v1/scores/keyed", b'{"keys": ["a"]}', header, *more)).status == 200
            for request in (
                get("/v1/scores/unkeyed/a", header, *more),
                post("/v1/scores/unkeyed", b'{"keys": ["a"]}', header, *more),
            ):
                refused = client.ask(request)
                assert (refused.status, refused.json["type"]) == (403, "urn:scoreline:problem:forbidden")
        listed = client.ask(get("/v1/pipelines", header)).json
    assert [one["pipeline"] for one in listed["pipelines"]] == ["keyed"]
    assert listed["not_live"] == []


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["X-API-Key: "],
        ["X-API-Key: slk_wrong"],
        ["Authorization: Basic eDp5"],
        ["Authorization: Basic eDp5", f"X-API-Key: {KEY}"],
        ["Authorization: Bearer x", f"X-API-Key: {KEY}"],
        ["X-API-Key: \xff"],
    ],
)
def test_without_a_known_key_nothing_is_told(guarded: str, headers: list[str]) -> None:
    with RawClient(guarded) as client:
        refused = [client.ask(get(path, *headers, *more)) for path in BARE for more in ([], ["TE: trailers"])]
        refused.append(client.ask(post("/v1/scores/keyed", b"no JSON", *headers)))
    for answer in refused:
        assert (answer.status, answer.json["type"]) == (401, "urn:scoreline:problem:unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len({json.dumps({**answer.json, "request_id": ""}) for answer in refused}) == 1


UNKNOWN = "POST /v1/scores/keyed", "X-API-Key: slk_wrong", 401
BODIES = {
    "a length": "Content-Length: 2000000",
    "chunks": "Transfer-Encoding: chunked",
    "a question": "Content-Length: 2000000\r\nExpect: 100-continue",
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("told", [UNKNOWN, ("POST /healthz", "X-Any: 1", 405), ("POST /", "X-Any: 1", 404)])
def test_no_body_is_awaited_that_nobody_is_to_read(guarded: str, told: tuple[str, str, int], case: str) -> None:
    line, header, status = told
    with RawClient(guarded) as client:
        head = f"{line} HTTP/1.1\r\nHost: s\r\n{header}\r\n{BODIES[case]}\r\n\r\n"
        refused = client.ask(head.encode())
        assert (refused.status, refused.headers["connection"]) == (status, "close")
        assert client.ended()


LONG = f"X-Long: {'x' * MOST_BYTES}"
KEPT = {
    "a known caller": ([f"X-API-Key: {KEY}"], 1),
    "one with long headers": ([f"X-API-Key: {KEY}", LONG], 0),
    "one that names its request": ([f"X-API-Key: {KEY}", "X-Request-ID: 7"], 0),
    "an unknown caller": (["X-API-Key: slk_wrong"], 0),
    "nobody": ([], 0),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_headers_of_known_callers_alone_are_kept(keys: Path, case: str) -> None:
    headers, kept = KEPT[case]
    cache, block = TraitsCache(KeyRing(keys)), "".join(f"{line}\r\n" for line in ["Host: s", *headers]).encode()
    assert cache.of(block) == traits_of(block)
    assert list(cache._kept) == [block] * kept


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_what_shows_no_score_is_open(guarded: str, path: str) -> None:
    assert httpx.get(guarded + path).status_code == 200


def test_openapi_tells_of_keys_where_they_are_needed(guarded: str, service_url: str) -> None:
    told, untold = (httpx.get(f"{url}/openapi.json").json() for url in (guarded, service_url))
    lookup = told["paths"]["/v1/scores/{pipeline}/{key}"]["get"]
    assert lookup["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    assert {"401", "403"} <= set(lookup["responses"])
    assert "securitySchemes" not in untold["components"]


def test_a_service_reads_a_changed_file_and_keeps_the_keys_it_has_when_it_cannot(
    store: Store, redis_url: str, tmp_path: Path
) -> None:
    publish(store, "keyed", 2, {"a": 0.5})
    path, next_path = tmp_path / "keys.jsonl", tmp_path / "next"
    path.write_text(LINE)
    other, other_line = new_key("other", ["keyed"])
    with service_at(redis_url, api_keys_file=str(path)) as url:
        assert status(url, KEY) == 200
        next_path.write_text(f"{other_line}\n")
        next_path.rename(path)
        until(url, other, 200)
        assert status(url, KEY) == 401
        path.write_text("no JSON")
        time.sleep(1)
        assert status(url, other) == 200
        path.unlink()
        time.sleep(1)
        assert status(url, other) == 200
        path.write_text(LINE)
        until(url, KEY, 200)


def status(url: str, key: str) -> int:
    return httpx.get(f"{url}/v1/scores/keyed/a", headers={"X-API-Key": key}).status_code


def until(url: str, key: str, expected: int) -> None:
    deadline = time.monotonic() + 20
    while status(url, key) != expected:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(**settings: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SCORELINE_PORT": str(free_port()), **settings}
    command = [sys.executable, "-m", "serving"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("host", [OPEN, "::", "scores.example"])
def test_an_open_service_without_keys_does_not_start(host: str) -> None:
    refused = ended(SCORELINE_HOST=host)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"scoreline: error: SCORELINE_HOST: {host} is open to the network")
    assert "scoreline api-key new" in refused.stderr
    assert refused.stderr.count("\n") == 1


WRONG = {
    "no JSON": ("\n\nkey", "line 3: Expecting value"),
    "no digest": ('{"name": "a", "pipelines": []}', "line 1: sha256: Field required"),
    "the key itself": (
        json.dumps({"name": "a", "sha256": KEY, "pipelines": []}),
        "line 1: sha256: String should match",
    ),
    "no name of a pipeline": (LINE.replace("keyed", "a b"), r"line 1: pipelines\.0"),
    "no object": ("[1]", "line 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    text, told = WRONG[case]
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SettingsError, match=rf"^SCORELINE_API_KEYS_FILE: .*{told}.*api-key new") as refused:
        KeyRing(path)
    assert KEY not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused = ended(SCORELINE_API_KEYS_FILE=str(tmp_path / "none"))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "SCORELINE_API_KEYS_FILE" in refused.stderr


def test_the_command_prints_a_key_once_and_the_line_that_makes_it_known(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "api-key", "new", "billing", "--pipeline", "b", "--pipeline", "a"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    key, line = (each.partition(": ")[2] for each in told)
    path = tmp_path / "keys"
    path.write_text(line)
    ring = KeyRing(path)
    caller = ring.caller(key)
    assert (caller.name, sorted(caller.pipelines)) == ("billing", ["a", "b"])
    assert key not in line
    with pytest.raises(CallerUnknown):
        ring.caller(key + "x")


def test_keys_are_different_and_long() -> None:
    keys = {new_key("a", [ALL])[0] for _ in range(100)}
    assert len(keys) == 100
    assert min(map(len, keys)) > 40


@pytest.mark.parametrize(("name", "pipeline"), [("", "a"), ("a", "a b"), ("a", "")])
def test_what_no_key_can_have_is_refused(name: str, pipeline: str) -> None:
    with pytest.raises(KeyLineRefused, match="correct it"):
        new_key(name, [pipeline])
