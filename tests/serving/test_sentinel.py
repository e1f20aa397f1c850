"""A master, its replica and three sentinels: when the master fails or is sent away, jobs and lookups follow."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Timer

import pytest

from serving.blocks import Tally, audit
from serving.errors import StoreRefused, StoreUnavailable, TornGeneration
from serving.head import Head, parse_head
from serving.keys import block_key, head_key
from serving.store import Store
from serving.wire import connection, replication
from serving.wire.link import Link
from tests.serving.publishing import head_for, publish, write
from tests.serving.topologies import SERVICE, Server, Site, await_true, over

SCORES = {f"k{number}": number / 1000 for number in range(1000)}


@dataclass(frozen=True)
class Guarded:
    """A master, its replicas, one at first, and the sentinels over all."""

    site: Site
    master: Server
    replicas: list[Server]
    sentinels: list[Server]

    def url(self, user: str) -> str:
        return self.site.url(user, *self.sentinels, kind="+sentinel")

    def new_master(self) -> Server | None:
        return next((one for one in self.replicas if one.info("replication")["role"] == "master"), None)


@pytest.fixture
def guarded(servers: ExitStack, tmp_path: Path) -> Guarded:
    site = Site(tmp_path, servers)
    master = site.start()
    return Guarded(site, master, [site.replica_of(master)], site.sentinels(master))


@pytest.fixture
def store(guarded: Guarded) -> Iterator[Store]:
    with Store(guarded.url("publisher")) as opened:
        yield opened


async def looked_up(reader: Link) -> Head | None:
    """Return the live head, all of whose blocks are as they were published; or None while nobody answers."""
    try:
        (record,) = await reader.ask([("GET", head_key("followed"))])
        head = parse_head(record)
        buckets = range(head.layout.buckets)
        (blocks,) = await reader.ask([("MGET", *(block_key("followed", head.token, bucket) for bucket in buckets))])
    except StoreUnavailable:
        return None
    found = list(zip(buckets, blocks, strict=True))
    assert audit(head.layout, head.token, found) == Tally(head.rows, head.checksum)
    return head


def publish_until_it_has_moved(guarded: Guarded, store: Store) -> Head:
    """Publish one generation after another; return the first that went live on what was the replica."""
    for token in count(2):
        head = head_for("followed", token, SCORES)
        with suppress(StoreUnavailable, TornGeneration):  # refused in the middle: published again
            assert store.claim("followed", token)
            write(store, head, SCORES)
            if store.swap(head) == "live" and guarded.new_master():
                return head
    raise AssertionError


def test_lookups_follow_a_failed_master_by_themselves_and_see_whole_generations(guarded: Guarded, store: Store) -> None:
    seen = [publish(store, "followed", 1, SCORES)]

    async def work(reader: Link) -> None:
        assert await looked_up(reader) == seen[0]
        publisher = asyncio.create_task(asyncio.to_thread(publish_until_it_has_moved, guarded, store))
        asyncio.get_running_loop().call_later(0.2, guarded.master.kill)
        while not publisher.done():
            head = await looked_up(reader)
            seen.extend([head] if head else [])
            await asyncio.sleep(0.01)
        assert await looked_up(reader) == await publisher

    over(guarded.url("reader"), work)
    tokens = [head.token for head in seen]
    assert tokens == sorted(tokens)


def test_what_a_master_takes_that_is_being_sent_away_is_not_live(
    guarded: Guarded, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a while it goes on beside the new one: all that is written there is lost in the end."""
    live = publish(store, "followed", 1, SCORES)

    async def work(reader: Link) -> None:
        assert await looked_up(reader) == live
        assert store.claim("followed", 2)
        guarded.sentinels[0].raw.sentinel_failover(SERVICE)
        await_true(lambda: guarded.new_master() is not None)
        write(store, head_for("followed", 2, SCORES), SCORES)
        monkeypatch.setattr(replication, "PATIENCE_SECONDS", 0.5)
        with pytest.raises(StoreUnavailable, match="replicas that went away"):
            store.swap(head_for("followed", 2, SCORES))
        monkeypatch.undo()
        send_away(guarded)
        assert await looked_up(reader) == live
        head = publish(store, "followed", 3, SCORES)
        assert await looked_up(reader) == head
        assert parse_head(guarded.replicas[0].raw.get(head_key("followed"))) == head

    over(guarded.url("reader"), work)


def send_away(guarded: Guarded) -> None:
    """Do what sentinels do after some ten seconds: the old master follows the new one, and drops who is connected."""
    (new,) = guarded.replicas
    await_true(lambda: {one.raw.sentinel_master(SERVICE)["port"] for one in guarded.sentinels} == {new.port})
    guarded.master.raw.replicaof("127.0.0.1", new.port)
    guarded.master.raw.client_kill_filter(_type="normal")


def test_a_swap_that_the_failed_master_took_along_does_not_count_as_live(guarded: Guarded, store: Store) -> None:
    publish(store, "taken", 1, SCORES)
    head = head_for("taken", 2, SCORES)
    assert store.claim("taken", 2)
    write(store, head, SCORES)
    (replica,) = guarded.replicas
    replica.process.send_signal(signal.SIGSTOP)

    def fail_over() -> None:
        guarded.master.kill()
        replica.process.send_signal(signal.SIGCONT)

    failing = Timer(0.2, fail_over)
    failing.start()
    with pytest.raises(StoreUnavailable, match="has changed its master while taken went live with generation 2"):
        store.swap(head)
    failing.join()
    assert guarded.new_master() is replica
    assert store.swap(head) == "live", "its claim and its blocks are there"


def test_a_service_that_sentinels_do_not_know_and_credentials_that_they_refuse_are_told(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0)
    good = guarded.url("reader")
    told = r"/other does not answer \(no sentinel knows a master of other\)"
    with Store(good.replace(f"/{SERVICE}/", "/other/")) as unknown, pytest.raises(StoreUnavailable, match=told):
        unknown.head("any")
    for wrong in (good.replace("reader", "nobody", 1), good.partition("?")[0]):
        with Store(wrong) as refused, pytest.raises(StoreRefused, match="refuses this user"):
            refused.head("any")
