"""The users of infra/redis: each can do its work, wherever Redis runs, and nothing else."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ResponseError
from redis.retry import Retry

from serving.answers import Score
from serving.client import Client
from serving.head import Overlay
from serving.keys import PIPELINES
from serving.overlay import Fresh, OverlayStore
from serving.refusals import Refusal, RefusalStore
from serving.store import Store
from serving.wire.route import Command
from tests.serving.certificates import certificates_in
from tests.serving.conftest import service_at
from tests.serving.publishing import head_for, publish, write
from tests.serving.topologies import Cluster, Site

SCORES = {f"k{number}": number / 128 for number in range(100)}
REFUSAL = "no permissions|No permission|DEBUG command not allowed|script can't (run this command|access at least one)"
OURS = "scoreline:{a}:head"
BOTH: list[Command] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
    ("CONFIG", "GET", "*"),
    ("KEYS", "*"),
    ("SCAN", 0),
    ("DEBUG", "JMAP"),
    ("SHUTDOWN", "NOSAVE"),
    ("ACL", "LIST"),
    ("CLIENT", "LIST"),
    ("MONITOR",),
    ("REPLICAOF", "NO", "ONE"),
    ("CLUSTER", "RESET"),
    ("FUNCTION", "FLUSH"),
    ("SCRIPT", "FLUSH"),
    ("SWAPDB", 0, 1),
    ("SUBSCRIBE", "scoreline:x"),
    ("DEL", OURS),
    ("RENAME", OURS, "scoreline:other"),
    ("EXPIRE", OURS, 1),
    ("GET", "other"),
    ("HGET", "other", "field"),
    ("SMEMBERS", "other"),
]
READER: list[Command] = [
    ("SET", OURS, "x"),
    ("UNLINK", OURS),
    ("SADD", PIPELINES, "x"),
    ("HSET", OURS, "x", "x"),
    ("HDEL", OURS, "x"),
    ("EVAL", "return 1", 0),
    ("EVAL", "return redis.call('GET', KEYS[1])", 1, OURS),
    ("INFO", "memory"),
    ("HMGET", OURS, "field"),
    ("EXISTS", OURS),
]
PUBLISHER: list[Command] = [
    ("SET", "other", "x"),
    ("UNLINK", "other"),
    ("SADD", "other", "x"),
    ("HSET", "other", "x", "x"),
    ("SREM", PIPELINES, "x"),
    ("HLEN", OURS),
    ("MGET", OURS),
    ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "other"),
    ("EVAL", "return redis.call('SET', 'other', 1)", 0),
    ("EVAL", "return redis.call('FLUSHALL')", 0),
    ("EVAL", "return redis.call('KEYS', '*')", 0),
]


@pytest.mark.parametrize(("user", "others"), [("reader", READER), ("publisher", PUBLISHER)])
def test_a_user_cannot_do_what_it_must_not(
    servers: ExitStack, tmp_path: Path, user: str, others: list[Command]
) -> None:
    site = Site(tmp_path, servers)
    raw = servers.enter_context(redis.Redis.from_url(site.url(user, site.start())))
    for command in BOTH + others:
        with pytest.raises(ResponseError, match=REFUSAL):
            pytest.fail(f"{command}: {raw.execute_command(*command)}")


def test_nobody_is_let_in_without_a_name(servers: ExitStack, tmp_path: Path) -> None:
    server = Site(tmp_path, servers).start()
    with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as nobody, pytest.raises(AuthenticationError):
        nobody.ping()


def test_a_server_that_starts_leaves_alone_what_another_has_yet_to_read(servers: ExitStack, tmp_path: Path) -> None:
    """One opens its port before it reads its users: of a file that was being written again it let nobody in."""
    site = Site(tmp_path, servers)
    files = [Path(server.raw.config_get("aclfile")["aclfile"]) for server in (site.start(), site.start())]
    assert len({file.read_text() for file in files}) == 1
    assert len(set(files)) == 2


def place_of(site: Site, kind: str) -> Callable[[str], str]:
    """Start what `kind` says, and return what gives its URL for a user."""
    if kind == "sentinels":
        master = site.start()
        site.replica_of(master)
        guards = site.sentinels(master)
        return lambda user: site.url(user, *guards, kind="+sentinel")
    if kind == "cluster":
        return Cluster(site, site.cluster()).url
    server = site.start()
    return lambda user: site.url(user, server)


@pytest.mark.parametrize("kind", ["server", "sentinels", "cluster"])
def test_a_day_s_work_is_done_over_tls_by_users_with_no_more_rights_than_it_takes(
    servers: ExitStack, tmp_path: Path, kind: str
) -> None:
    url = place_of(Site(tmp_path, servers, certificates_in(tmp_path / "tls")), kind)
    with Store(url("publisher")) as store:
        store.require_noeviction()
        old = publish(store, "daily", 1, SCORES)
        assert store.claim("daily", 2)
        head = replace(head_for("daily", 2, SCORES), overlay=Overlay(4))
        write(store, head, SCORES)
        assert store.swap(head) == "live"
        assert store.remove_generation("daily", 1, range(old.layout.buckets)) == old.layout.buckets
        overlay = OverlayStore(store)
        assert overlay.write(head, [Fresh("k1", head.as_of + number, (0.5,)) for number in range(2)]) == 2
        assert store.pipelines() == ["daily"]  # an erasure of all asks
        assert overlay.drop_overtaken(replace(head, as_of=head.as_of - 1)) == 0
        RefusalStore(store, "daily").put(date(1998, 6, 1), Refusal("history only", "older", head.as_of))
    service = servers.enter_context(service_at(url("reader")))
    with Client(service) as client:
        batch, fresher = client.scores("daily", ["k0", "k1"])
        (status,) = client.pipelines()
    assert isinstance(batch, Score)
    assert isinstance(fresher, Score)
    assert (batch.source, batch.score, batch.generation) == ("batch", SCORES["k0"], 2)
    assert (fresher.source, fresher.score) == ("stream", 0.5)
    assert (status.pipeline, status.generation, len(status.refusals)) == ("daily", 2, 1)
    assert httpx.get(f"{service}/readyz").status_code == 200
