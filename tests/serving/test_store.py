"""The store against real servers: generations, the swap, and what Redis may do to us."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest
import redis

from serving.errors import EvictionRefused, GenerationLive, StoreRefused, TornGeneration
from serving.keys import block_key
from serving.store import BATCH, Store
from tests.conftest import free_port
from tests.serving.conftest import redis_at
from tests.serving.publishing import head_for, publish, write

SCORES = {f"k{number}": number / 100 for number in range(100)}


def test_blocks_read_back_as_written_over_several_round_trips(store: Store) -> None:
    blocks = [(bucket, bucket.to_bytes(4, "big")) for bucket in range(2 * BATCH + 1)]
    assert store.write_blocks("trips", 1, iter(blocks)) == len(blocks)
    assert list(store.read_blocks("trips", 1, range(len(blocks)))) == blocks


def test_a_lost_block_is_torn_and_named(store: Store, redis_url: str) -> None:
    write(store, head_for("lost", 4, SCORES), SCORES)
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete(block_key("lost", 4, 3))
    with pytest.raises(TornGeneration, match="lost: generation 4 lacks bucket 3"):
        list(store.read_blocks("lost", 4, range(25)))


def test_nothing_is_live_before_the_first_swap(store: Store) -> None:
    assert store.observe("nothing") == (None, None)
    head = publish(store, "nothing", 1, SCORES)
    assert store.observe("nothing") == (head.to_json(), head)


def test_of_two_publishers_who_saw_one_head_one_wins(store: Store) -> None:
    publish(store, "race", 1, SCORES)
    observed, _ = store.observe("race")
    first, second = head_for("race", 2, SCORES), head_for("race", 3, SCORES)
    assert store.swap(observed, first)
    assert not store.swap(observed, second)
    assert store.head("race") == first


def test_who_saw_nothing_does_not_replace_what_is_live(store: Store) -> None:
    live = publish(store, "saw-nothing", 1, SCORES)
    assert not store.swap(None, head_for("saw-nothing", 2, SCORES))
    assert store.head("saw-nothing") == live


def test_a_swap_sent_again_after_its_answer_was_lost_has_won(store: Store) -> None:
    observed, _ = store.observe("again")
    head = head_for("again", 1, SCORES)
    assert store.swap(observed, head)
    assert store.swap(observed, head)


def test_a_swap_that_comes_after_the_head_went_changes_nothing(store: Store, redis_url: str) -> None:
    publish(store, "emptied", 1, SCORES)
    observed, _ = store.observe("emptied")
    with redis.Redis.from_url(redis_url) as raw:
        raw.delete("scoreline:{emptied}:head")
    assert not store.swap(observed, head_for("emptied", 2, SCORES))
    assert store.head("emptied") is None


def test_an_old_generation_is_removed_and_the_live_one_never(store: Store) -> None:
    old = publish(store, "removal", 1, SCORES)
    publish(store, "removal", 2, SCORES)
    buckets = range(old.layout.buckets)
    with pytest.raises(GenerationLive, match="generation 2 is live"):
        store.remove_generation("removal", 2, buckets)
    assert store.remove_generation("removal", 1, buckets) == old.layout.buckets
    assert store.remove_generation("removal", 1, buckets) == 0
    assert len(list(store.read_blocks("removal", 2, buckets))) == old.layout.buckets


def test_a_redis_that_evicts_is_refused(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--maxmemory-policy", "allkeys-lru"))
    with (
        Store(f"redis://127.0.0.1:{port}") as evicting,
        pytest.raises(EvictionRefused, match=r"allkeys-lru.*set maxmemory-policy noeviction"),
    ):
        evicting.require_noeviction()


@pytest.mark.parametrize("denied", ["-info", "-config", "-info -config"])
def test_the_policy_is_found_by_either_command(servers: ExitStack, tmp_path: Path, denied: str) -> None:
    port = free_port()
    user = ("--user", *f"writer on >secret ~* +@all {denied}".split())
    servers.enter_context(redis_at(port, tmp_path, "--maxmemory-policy", "noeviction", *user))
    with Store(f"redis://writer:secret@127.0.0.1:{port}") as limited:
        if denied != "-info -config":
            limited.require_noeviction()
            return
        with pytest.raises(EvictionRefused, match=r"^(?!.*secret).*allow this user INFO"):
            limited.require_noeviction()


def test_a_publication_waits_for_a_redis_that_comes_back(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    starting = Timer(1, lambda: servers.enter_context(redis_at(port, tmp_path)))
    with Store(f"redis://127.0.0.1:{port}") as waiting:
        starting.start()
        publish(waiting, "patient", 1, SCORES)
        starting.join()
        assert waiting.head("patient") == head_for("patient", 1, SCORES)


def test_a_full_redis_refuses_the_new_generation_and_keeps_the_old(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction"))
    with Store(f"redis://127.0.0.1:{port}") as full:
        live = publish(full, "full", 1, SCORES)
        with pytest.raises(StoreRefused, match="maxmemory"):
            full.write_blocks("full", 2, ((bucket, bytes(10_000)) for bucket in range(2_000)))
        assert full.head("full") == live
        assert len(list(full.read_blocks("full", 1, range(live.layout.buckets)))) == live.layout.buckets


def test_an_older_zombie_finds_another_head_than_it_saw(store: Store) -> None:
    publish(store, "zombie", 1, SCORES)
    seen, _ = store.observe("zombie")
    newer = publish(store, "zombie", 3, SCORES)
    assert not store.swap(seen, replace(head_for("zombie", 2, SCORES), as_of=newer.as_of - 1))
    assert store.head("zombie") == newer
