"""The store against real servers: generations, the swap, and what Redis may do to us."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from serving.errors import EvictionRefused, GenerationLive, StoreRefused, TornGeneration
from serving.head import Head
from serving.keys import block_key, head_key
from serving.store import BATCH, Store
from tests.conftest import free_port, redis_at, stop
from tests.serving.publishing import head_for, publish, raw, write

SCORES = {f"k{number}": number / 100 for number in range(100)}


@pytest.fixture(scope="module")
def store(any_store: Store) -> Store:
    return any_store


def test_blocks_read_back_as_written_over_several_round_trips(store: Store) -> None:
    blocks = [(bucket, bucket.to_bytes(4, "big")) for bucket in range(2 * BATCH + 1)]
    assert store.write_blocks("trips", 1, iter(blocks)) == len(blocks)
    assert list(store.read_blocks("trips", 1, range(len(blocks)))) == blocks


def test_a_lost_block_is_torn_and_named(store: Store) -> None:
    write(store, head_for("lost", 4, SCORES), SCORES)
    store.unlink([block_key("lost", 4, 3)])
    with pytest.raises(TornGeneration, match="lost: generation 4 lacks bucket 3"):
        list(store.read_blocks("lost", 4, range(25)))


def test_nothing_is_live_before_the_first_swap(store: Store) -> None:
    assert (store.record("nothing"), store.head("nothing")) == (None, None)
    head = publish(store, "nothing", 1, SCORES)
    assert (store.record("nothing"), store.head("nothing")) == (head.to_json(), head)


def test_of_two_publishers_the_later_claim_wins_whoever_swaps_first(store: Store) -> None:
    publish(store, "race", 1, SCORES)
    first, second = head_for("race", 2, SCORES), head_for("race", 3, SCORES)
    assert store.claim("race", 2)
    assert store.claim("race", 3)
    assert store.swap(first) == "unclaimed"
    assert store.swap(second) == "live"
    assert store.swap(first) == "unclaimed"
    assert store.head("race") == second


def test_a_claim_is_kept_by_its_token_and_never_goes_back(store: Store) -> None:
    assert store.claim("claim", 10)
    assert store.claim("claim", 10)
    assert not store.claim("claim", 9)
    assert store.claim("claim", 11)


def test_nobody_goes_live_without_a_claim(store: Store) -> None:
    assert store.swap(head_for("no-claim", 1, SCORES)) == "unclaimed"
    assert store.head("no-claim") is None


def test_a_swap_sent_again_after_its_answer_was_lost_has_won(store: Store) -> None:
    head = publish(store, "again", 1, SCORES)
    assert store.claim("again", 2)
    assert store.swap(head) == "live"


def test_an_older_as_of_is_refused_by_the_swap_itself(store: Store) -> None:
    live = publish(store, "older", 1, SCORES)
    assert store.claim("older", 2)
    assert store.swap(replace(head_for("older", 2, SCORES), as_of=live.as_of - 1)) == "older"
    assert store.head("older") == live


def test_an_equal_as_of_needs_a_higher_token(store: Store) -> None:
    """As when the ledger was restored from before, and gives tokens again."""
    live = publish(store, "restored", 5, SCORES)
    assert store.unlink(["scoreline:{restored}:claim"]) == 1
    assert store.claim("restored", 4)
    assert store.swap(head_for("restored", 4, SCORES)) == "older"
    assert store.head("restored") == live


def test_an_emptied_redis_does_not_help_a_zombie(store: Store) -> None:
    """Neither one that was to be the first, nor one that saw what was live."""
    assert store.claim("emptied", 1)
    assert store.unlink(["scoreline:{emptied}:head", "scoreline:{emptied}:claim"]) == 1
    assert store.swap(head_for("emptied", 1, SCORES)) == "unclaimed"
    assert store.head("emptied") is None


def test_a_publisher_who_saw_an_epoch_that_is_over_is_refused(store: Store) -> None:
    live = publish(store, "epochs", 1, SCORES)
    observed = store.record("epochs")
    assert store.claim("epochs", 2)
    assert store.replace(observed, replace(live, epoch=2)) == "live"
    assert store.swap(replace(head_for("epochs", 2, SCORES), as_of=live.as_of + 1)) == "epoch"


def test_a_publisher_with_an_epoch_of_its_own_does_not_undo_a_rollback(store: Store) -> None:
    """Another model begins the same epoch as the rollback that came in between: the numbers alone would not tell."""
    live = publish(store, "same-epoch", 1, SCORES)
    observed = store.record("same-epoch")
    assert store.claim("same-epoch", 2)
    back = replace(live, epoch=2)
    assert store.replace(observed, back) == "live"
    head = replace(head_for("same-epoch", 2, SCORES), epoch=2)
    assert store.swap(head, live) == "epoch"
    assert store.swap(head, back) == "live"


def test_the_highest_token_is_that_of_the_claim_or_of_the_head(store: Store) -> None:
    assert store.highest_token("tokens") == 0
    publish(store, "tokens", 5, SCORES)
    assert store.claim("tokens", 7)
    assert store.highest_token("tokens") == 7
    store.unlink(["scoreline:{tokens}:claim"])
    assert store.highest_token("tokens") == 5
    store.ask("SET", "scoreline:{tokens}:head", "no record")
    assert store.claim("tokens", 9)
    assert store.highest_token("tokens") == 9


def test_what_was_written_before_redis_was_emptied_replaces_nothing(store: Store) -> None:
    head = head_for("emptied-since", 1, SCORES)
    assert store.claim("emptied-since", 1)
    store.unlink(["scoreline:{emptied-since}:claim"])
    assert store.replace_claimed(None, head) == "unclaimed"
    assert store.claim("emptied-since", 1)
    assert store.replace_claimed(b"something else", head) == "moved"
    assert store.replace_claimed(None, head) == "live"
    assert store.replace_claimed(None, head) == "live"


def test_blocks_are_counted_and_found_where_some_are_missing(store: Store) -> None:
    head = publish(store, "counted", 1, SCORES)
    store.unlink([block_key("counted", 1, 3)])
    assert store.count_blocks("counted", 1, range(head.layout.buckets)) == head.layout.buckets - 1
    found = dict(store.find_blocks("counted", 1, range(head.layout.buckets)))
    assert [bucket for bucket, block in found.items() if block is None] == [3]


def test_a_replacement_takes_what_it_saw_alone(store: Store) -> None:
    old = publish(store, "replaced", 1, SCORES)
    publish(store, "replaced", 2, SCORES)
    observed, live = store.record("replaced"), store.head("replaced")
    assert live is not None
    back = replace(old, epoch=live.epoch + 1)
    assert store.replace(b"something else", back) == "moved"
    assert store.replace(None, back) == "moved"
    assert store.replace(observed, back) == "live"
    assert store.replace(observed, back) == "live"
    assert store.head("replaced") == back


def test_a_head_that_no_version_can_read_is_not_taken_for_older(store: Store) -> None:
    store.ask("SET", "scoreline:{garbled}:head", "no record")
    assert store.claim("garbled", 1)
    assert store.swap(head_for("garbled", 1, SCORES)) == "unreadable"


def test_an_old_generation_is_removed_and_the_live_one_never(store: Store) -> None:
    old = publish(store, "removal", 1, SCORES)
    publish(store, "removal", 2, SCORES)
    buckets = range(old.layout.buckets)
    with pytest.raises(GenerationLive, match="generation 2 is live"):
        store.remove_generation("removal", 2, buckets)
    assert store.remove_generation("removal", 1, buckets) == old.layout.buckets
    assert store.remove_generation("removal", 1, buckets) == 0
    assert len(list(store.read_blocks("removal", 2, buckets))) == old.layout.buckets


def test_while_the_head_cannot_be_read_no_generation_is_removed(store: Store) -> None:
    """It may name any: a later version's publisher may have died after its swap."""
    head = publish(store, "unknown", 1, SCORES)
    buckets = range(head.layout.buckets)
    store.ask("SET", head_key("unknown"), '{"format": 2}')
    with pytest.raises(GenerationLive, match="generation 1 may be live and stays: a head record this version cannot"):
        store.remove_generation("unknown", 1, buckets)
    assert store.count_blocks("unknown", 1, buckets) == len(buckets)


def test_what_is_being_removed_cannot_come_back(store: Store) -> None:
    old = publish(store, "removed", 1, SCORES)
    live = publish(store, "removed", 2, SCORES)
    store.remove_generation("removed", 1, range(0))
    back = replace(old, epoch=2)
    assert store.replace(live.to_json(), back) == "removed"
    assert store.replace_claimed(live.to_json(), back) == "unclaimed"
    assert store.unlink(["scoreline:{removed}:claim"]) == 1
    assert store.claim("removed", 1)
    assert store.replace_claimed(live.to_json(), back) == "removed"
    assert store.head("removed") == live


def test_what_goes_live_at_this_moment_is_not_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the head was read, and before the first unlink."""
    old = publish(store, "moment", 1, SCORES)
    live, buckets = publish(store, "moment", 2, SCORES), range(old.layout.buckets)
    real = Store.head

    def overtaken(given: Store, pipeline: str) -> Head | None:
        found = real(given, pipeline)
        assert store.replace(live.to_json(), replace(old, epoch=2)) == "live"
        return found

    monkeypatch.setattr(Store, "head", overtaken)
    with pytest.raises(GenerationLive, match="generation 1 went live at this moment and stays"):
        store.remove_generation("moment", 1, buckets)
    assert store.count_blocks("moment", 1, buckets) == len(buckets)


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


def test_what_a_restart_took_away_does_not_go_live(servers: ExitStack, tmp_path: Path) -> None:
    """The claim came back with the server, from a file of before the blocks, say."""
    port = free_port()
    first = servers.enter_context(redis_at(port, tmp_path))
    with Store(f"redis://127.0.0.1:{port}") as restarted:
        assert restarted.claim("restarted", 1)
        write(restarted, head_for("restarted", 1, SCORES), SCORES)
        stop(first)
        servers.enter_context(redis_at(port, tmp_path))
        restarted.ask("SET", "scoreline:{restarted}:claim", 1)
        with pytest.raises(TornGeneration, match="restarted: generation 1 lost 25 blocks"):
            restarted.swap(head_for("restarted", 1, SCORES))
        assert restarted.head("restarted") is None


def test_a_full_redis_refuses_the_new_generation_and_keeps_the_old(servers: ExitStack, tmp_path: Path) -> None:
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction"))
    with Store(f"redis://127.0.0.1:{port}") as full:
        live = publish(full, "full", 1, SCORES)
        with pytest.raises(StoreRefused, match="maxmemory"):
            full.write_blocks("full", 2, ((bucket, bytes(10_000)) for bucket in range(2_000)))
        assert full.head("full") == live
        assert len(list(full.read_blocks("full", 1, range(live.layout.buckets)))) == live.layout.buckets


def test_a_full_redis_takes_claims_swaps_and_rollbacks(servers: ExitStack, tmp_path: Path) -> None:
    """All that can end its being full: what was removed, or went live and frees others, begins with one of them."""
    port = free_port()
    servers.enter_context(redis_at(port, tmp_path, "--maxmemory-policy", "noeviction"))
    with Store(f"redis://127.0.0.1:{port}") as full:
        old = publish(full, "full", 1, SCORES)
        write(full, head_for("full", 2, SCORES), SCORES)
        raw(full).config_set("maxmemory", 1)
        with pytest.raises(StoreRefused, match="maxmemory"):
            full.register("full")
        assert full.claim("full", 2)
        assert full.swap(head_for("full", 2, SCORES)) == "live"
        back = replace(old, epoch=2)
        assert full.replace(full.record("full"), back) == "live"
        assert full.replace_claimed(full.record("full"), replace(head_for("full", 2, SCORES), epoch=3)) == "live"
        assert full.remove_generation("full", 1, range(old.layout.buckets)) == old.layout.buckets
        assert 0 < raw(full).ttl("scoreline:{full}:removed:1") <= 86_400
