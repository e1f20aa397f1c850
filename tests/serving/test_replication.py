"""What a publication has read back is on a replica as well, so that no failover takes it away."""

import signal
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Timer

import pytest

from serving.errors import StoreUnavailable
from serving.store import Store
from serving.wire import replication
from tests.serving.publishing import head_for, publish
from tests.serving.topologies import Server, Site


@pytest.fixture
def pair(servers: ExitStack, tmp_path: Path) -> tuple[Store, Server]:
    """A store over a master, and its replica."""
    site = Site(tmp_path, servers)
    master = site.start()
    return servers.enter_context(Store(site.url("publisher", master))), site.replica_of(master)


def paused(replica: Server, servers: ExitStack) -> Event:
    """Stop a replica for a second, and return what is set when it goes on."""
    goes_on = Event()

    def go_on() -> None:
        goes_on.set()
        replica.process.send_signal(signal.SIGCONT)

    replica.process.send_signal(signal.SIGSTOP)
    waker = Timer(1, go_on)
    servers.callback(waker.join)
    waker.start()
    return goes_on


def test_blocks_are_written_when_a_replica_has_them(pair: tuple[Store, Server], servers: ExitStack) -> None:
    store, replica = pair
    goes_on = paused(replica, servers)
    assert store.write_blocks("replicated", 1, [(0, b"block")]) == 1
    assert goes_on.is_set()


def test_a_head_is_live_when_a_replica_has_it(pair: tuple[Store, Server], servers: ExitStack) -> None:
    store, replica = pair
    live = publish(store, "replicated", 1, {"a": 0.5})
    observed = store.record("replicated")
    assert store.claim("replicated", 2)
    goes_on = paused(replica, servers)
    assert store.swap(head_for("replicated", 2, {"a": 0.5})) == "live"
    assert goes_on.is_set()
    again = paused(replica, servers)
    assert store.replace(store.record("replicated"), live) == "live"
    assert again.is_set()
    assert observed == live.to_json()


def test_a_master_that_wants_a_replica_is_asked_again_until_it_has_one(servers: ExitStack, tmp_path: Path) -> None:
    """As one that has just taken over, by infra/redis/redis.conf."""
    site = Site(tmp_path, servers)
    master = site.start("--min-replicas-to-write", "1")
    ready = Timer(0.5, master.raw.config_set, ("min-replicas-to-write", 0))
    ready.start()
    with Store(site.url("publisher", master)) as store:
        publish(store, "patient", 1, {"a": 0.5})
    assert not ready.is_alive()


def test_a_master_whose_replica_has_gone_since_the_claim_is_not_trusted(
    pair: tuple[Store, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perhaps the replica is the new master, and all that is written here is lost."""
    store, replica = pair
    monkeypatch.setattr(replication, "PATIENCE_SECONDS", 0.2)
    assert store.claim("deserted", 1)
    replica.kill()
    with pytest.raises(StoreUnavailable, match="replicas that went away"):
        store.swap(head_for("deserted", 1, {"a": 0.5}))


def test_replicas_that_stay_behind_are_told_and_nothing_goes_live(
    pair: tuple[Store, Server], servers: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, replica = pair
    monkeypatch.setattr(replication, "PATIENCE_SECONDS", 0.2)
    replica.process.send_signal(signal.SIGSTOP)
    servers.callback(replica.process.send_signal, signal.SIGCONT)
    with pytest.raises(StoreUnavailable, match=r"replicas that went away or stay behind: see `INFO repl"):
        publish(store, "behind", 1, {"a": 0.5})
    assert store.head("behind") is None
