"""A cluster: slots that move, a master that fails; the tests of store, overlay and refusals run on one as well."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from threading import Timer

import httpx
import pytest
from redis.crc import key_slot

from serving.errors import EvictionRefused, StoreRefused, StoreUnavailable
from serving.keys import PIPELINES, block_key, head_key
from serving.store import BATCH, Store
from serving.wire import connection
from serving.wire.link import Link
from tests.conftest import free_port
from tests.serving.conftest import service_at
from tests.serving.publishing import head_for, publish
from tests.serving.topologies import MASTERS, SLOTS, Cluster, Server, Site, await_true, over

COVERAGE = ("--cluster-require-full-coverage", "no")
SCORES = {f"k{number}": number / 1000 for number in range(1000)}


def redirections(node: Server, kind: str) -> int:
    """Return how often a node has said that a key is elsewhere; `kind` is MOVED or ASK."""
    return int(node.info("errorstats").get(f"errorstat_{kind}", {"count": 0})["count"])


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Store]:
    with Store(cluster.url("publisher")) as opened:
        yield opened


def test_blocks_are_on_all_masters_and_are_looked_up_at_once(cluster: Cluster, store: Store) -> None:
    head = publish(store, "spread", 1, SCORES)
    names = [block_key("spread", 1, bucket) for bucket in range(head.layout.buckets)]
    replies = over(cluster.url("reader"), lambda opened: opened.ask([("GET", head_key("spread")), ("MGET", *names)]))
    assert replies == [head.to_json(), [block for _, block in store.read_blocks("spread", 1, range(len(names)))]]
    assert [node.raw.keys("*spread:*") for node in cluster.nodes].count([]) == 0


def test_replies_come_in_order_with_errors_in_their_place(cluster: Cluster, store: Store) -> None:
    publish(store, "ordered", 1, {"a": 0.5})
    commands = [
        ("PING",),
        ("HGET", head_key("ordered"), "a"),
        ("SMEMBERS", "scoreline:none"),
        ("STRLEN", "scoreline:x"),
    ]
    mixed = ("MGET", head_key("ordered"), "not ours")
    pong, wrong, nothing, denied, (head, refused) = over(
        cluster.url("reader"), lambda opened: opened.ask([*commands, mixed])
    )
    assert (pong, nothing, head) == (b"PONG", [], store.record("ordered"))
    assert [str(fault).split()[0] for fault in (wrong, denied, refused)] == ["WRONGTYPE", "NOPERM", "NOPERM"]


def test_a_master_that_evicts_is_refused_whichever_it_is(cluster: Cluster, store: Store) -> None:
    store.require_noeviction()
    for node in cluster.nodes:
        node.raw.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(EvictionRefused, match="allkeys-lru"):
            store.require_noeviction()
        node.raw.config_set("maxmemory-policy", "noeviction")


def test_nodes_that_do_not_say_how_they_are_called_are_where_they_were_asked(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.raw.config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        with Store(cluster.url("publisher")) as fresh:
            publish(fresh, "nameless", 1, SCORES)
    finally:
        for node in cluster.nodes:
            node.raw.config_set("cluster-preferred-endpoint-type", "ip")


def test_a_slot_that_moves_is_followed_while_it_moves_and_after(cluster: Cluster, store: Store) -> None:
    name = block_key("moving", 1, 0)
    assert store.head("moving") is None  # so that it knows where slots are
    move = cluster.begin_move(name)

    async def work(opened: Link) -> None:
        await opened.ask([("PING",)])
        assert await asyncio.to_thread(store.write_blocks, "moving", 1, [(0, b"block")]) == 1
        assert move.target.raw.execute_command("CLUSTER", "COUNTKEYSINSLOT", move.slot) == 1
        assert await opened.ask([("GET", name), ("PING",)]) == [b"block", b"PONG"]
        assert redirections(move.source, "ASK") == 2
        move.end()
        moved = redirections(move.source, "MOVED")
        for _ in range(2):
            assert list(store.read_blocks("moving", 1, [0])) == [(0, b"block")]
            assert await opened.ask([("MGET", name)]) == [[b"block"]]
        assert redirections(move.source, "MOVED") == moved + 2, "each learns once where the slot is"

    over(cluster.url("reader"), work)


def test_a_swap_waits_for_a_slot_whose_keys_are_half_moved(cluster: Cluster, store: Store) -> None:
    head = head_for("halfway", 1, SCORES)
    assert store.claim("halfway", 1)
    move = cluster.begin_move(head_key("halfway"))  # there is a claim and no head: where is it?
    end = Timer(0.5, move.undo)
    end.start()
    assert store.swap(head) == "live"
    assert not end.is_alive()


def test_refused_credentials_are_told_at_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "sleep", None)  # which would be called before another try
    url = cluster.url("reader").replace("reader", "nobody", 1)
    with Store(url) as refused, pytest.raises(StoreRefused, match="refuses this user"):
        refused.head("any")
    with pytest.raises(StoreRefused, match="refuses this user"):
        over(url, lambda opened: opened.ask([("GET", head_key("any"))]))


def test_a_server_that_is_no_cluster_is_named_as_such(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis+cluster://")
    with Store(url) as single, pytest.raises(StoreRefused, match="cluster support disabled"):
        single.head("any")


@pytest.mark.parametrize("how", [SIGKILL, SIGSTOP], ids=["dies", "hangs"])
def test_what_a_master_has_that_gives_no_answer_is_missing_and_nothing_else(
    servers: ExitStack, tmp_path: Path, how: int
) -> None:
    site = Site(tmp_path, servers)
    nodes = site.cluster(options=COVERAGE)
    whole = Cluster(site, nodes)
    with Store(whole.url("publisher")) as store:
        head = publish(store, "partly", 1, SCORES)
        lost = next(node for node in nodes if not node.raw.keys("*partly}:head") + node.raw.keys(PIPELINES))
        share = range(SLOTS * nodes.index(lost) // MASTERS, SLOTS * (nodes.index(lost) + 1) // MASTERS)
        away = next(name for name in map(str, count()) if key_slot(head_key(name).encode()) in share)
        publish(store, away, 1, SCORES)
    there = {name.decode() for node in nodes if node is not lost for name in node.raw.keys("*partly:*")}
    sound = {key for key in SCORES if block_key("partly", 1, head.layout.bucket_of(head.layout.hash_of(key))) in there}
    url = servers.enter_context(service_at(whole.url("reader")))
    target = f"{url}/v1/scores/partly"
    assert httpx.get(f"{target}/k0").status_code == 200
    lost.process.send_signal(how)
    servers.callback(lost.process.send_signal, SIGCONT)

    for way in ({}, {"TE": "trailers"}):
        answers = httpx.post(target, json={"keys": list(SCORES)}, headers=way).json()["answers"]
        assert {answer["key"] for answer in answers if "score" in answer} == sound
        problems = {answer["problem"]["type"] for answer in answers if "problem" in answer}
        assert problems == {"urn:scoreline:problem:store-unavailable"}

    def status(key: str) -> int:
        return httpx.get(f"{target}/{key}", timeout=20).status_code

    some = list(SCORES)[:30]
    with ThreadPoolExecutor(16) as callers:
        assert list(callers.map(status, some)) == [200 if key in sound else 503 for key in some]
    assert httpx.get(f"{url}/readyz").status_code == 200
    assert [one["pipeline"] for one in httpx.get(f"{url}/v1/pipelines").json()["pipelines"]] == ["partly"]
    assert "scoreline_unreadable_heads 1.0" in httpx.get(f"{url}/metrics").text


def test_a_cluster_without_slots_is_away_until_it_has_them(servers: ExitStack, tmp_path: Path) -> None:
    """The service may start before `redis-cli --cluster create`."""
    site = Site(tmp_path, servers)
    node = site.start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    url = site.url("reader", node, kind="+cluster")
    service = servers.enter_context(service_at(url))
    told = httpx.get(f"{service}/readyz")
    assert (told.status_code, told.json()["type"]) == (503, "urn:scoreline:problem:store-unavailable")
    node.raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
    await_true(lambda: httpx.get(f"{service}/readyz").status_code == 200)
    with Store(site.url("publisher", node, kind="+cluster")) as store:
        publish(store, "early", 1, SCORES)
    assert httpx.get(f"{service}/v1/scores/early/k1").status_code == 200


def test_a_head_whose_slot_nobody_has_is_away_and_not_unreadable(servers: ExitStack, tmp_path: Path) -> None:
    site = Site(tmp_path, servers)
    nodes = site.cluster(options=COVERAGE)
    with Store(Cluster(site, nodes).url("publisher")) as store:
        publish(store, "slotless", 1, SCORES)
    url = servers.enter_context(service_at(Cluster(site, nodes).url("reader")))
    assert httpx.get(f"{url}/v1/pipelines").status_code == 200
    for node in nodes:
        node.raw.execute_command("CLUSTER", "DELSLOTS", key_slot(head_key("slotless").encode()))
    for path in ("/v1/pipelines", "/v1/scores/slotless/k1"):
        told = httpx.get(f"{url}{path}")
        assert (told.status_code, told.json()["type"]) == (503, "urn:scoreline:problem:store-unavailable")


def test_jobs_do_not_take_a_cluster_without_slots_for_one_without_faults(
    servers: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0)
    site = Site(tmp_path, servers)
    node = site.start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with (
        Store(site.url("publisher", node, kind="+cluster")) as store,
        pytest.raises(StoreUnavailable, match="any slot"),
    ):
        store.require_noeviction()


def test_a_publication_and_lookups_ride_out_the_failure_of_a_master(servers: ExitStack, tmp_path: Path) -> None:
    site = Site(tmp_path, servers)
    nodes = site.cluster(replicas=1)
    whole = Cluster(site, nodes[1:])  # none of those named is the one to fail
    store = servers.enter_context(Store(whole.url("publisher")))
    head = head_for("failing", 1, {f"k{n}": 0.5 for n in range(8 * BATCH)})
    names = [block_key("failing", 1, bucket) for bucket in range(head.layout.buckets)]

    def blocks() -> Iterator[tuple[int, bytes]]:
        for bucket in range(len(names)):
            if bucket == len(names) // 2:
                nodes[0].kill()
            yield bucket, b"block"

    async def work(opened: Link) -> None:
        assert await opened.ask([("MGET", *names)]) == [[None] * len(names)]
        assert await asyncio.to_thread(store.claim, "failing", 1)
        assert await asyncio.to_thread(store.write_blocks, "failing", 1, blocks()) == len(names)
        assert await asyncio.to_thread(store.swap, head) == "live"
        replies = await opened.ask([("GET", head_key("failing")), ("MGET", *names)])
        assert replies == [head.to_json(), [b"block"] * len(names)]
        nodes[1].kill()  # which has no replica
        (found,) = await opened.ask([("MGET", *names)])
        assert {type(block) for block in found} == {bytes, StoreUnavailable}

    over(whole.url("reader"), work)
