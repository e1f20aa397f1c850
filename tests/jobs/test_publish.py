"""Publish: what is live is what the table has, and what is older or damaged never goes live."""

import shutil
import struct
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame

from jobs.errors import GenerationDiffers, NothingToPublish, Overtaken
from jobs.publication import generation
from jobs.publication.ledger import Ledger
from jobs.publication.publish import publish
from jobs.registry import ModelVersion
from jobs.run import Run
from serving.clock import Clock, microseconds
from serving.errors import StoreUnavailable
from serving.head import Overlay
from serving.keys import block_key, head_key
from serving.refusals import RefusalStore
from serving.store import Store
from tests.conftest import free_port
from tests.jobs.conftest import DAY
from tests.jobs.populations import declaring
from tests.project import Project, bits, scored
from tests.registered import register_small
from tests.serving.publishing import raw

SCORES = "scores/purchase_propensity"


@pytest.fixture
def store(store: Store, filled: Project) -> Store:
    """The database, and a ledger as empty as that: what it knows and Redis lost would not be overtaken."""
    filled.lake.files.delete("publications")
    return store


def test_what_is_live_is_what_the_table_has(filled: Project, run: Run, store: Store, jobs_redis_url: str) -> None:
    assert publish(run, jobs_redis_url) == "live"
    head = store.head("purchase_propensity")
    assert head is not None
    expected = bits(filled.lake.read(SCORES).where(run.partition))
    blocks = dict(store.read_blocks(head.pipeline, head.token, range(head.layout.buckets)))
    for key, score_bits in expected.items():
        hashed = head.layout.hash_of(key)
        found = head.layout.finder(head.token)(blocks[head.layout.bucket_of(hashed)], hashed)
        assert found is not None
        assert struct.pack("<f", found[0]) == score_bits
    assert head.rows == len(expected)


def test_an_older_date_is_history_only(
    filled: Project, run: Run, next_run: Run, store: Store, jobs_redis_url: str
) -> None:
    assert publish(next_run, jobs_redis_url) == "live"
    live = store.record("purchase_propensity")
    assert publish(run, jobs_redis_url) == "history only"
    assert store.record("purchase_propensity") == live
    refused = filled.lake.read("publications/purchase_propensity").where("event = 'history only'").collect()
    assert any("as of 1998-06-03 is newer" in row.note for row in refused)


def test_publishing_again_is_a_newer_generation_of_the_same(run: Run, store: Store, jobs_redis_url: str) -> None:
    publish(run, jobs_redis_url)
    first = store.head("purchase_propensity")
    publish(run, jobs_redis_url)
    second = store.head("purchase_propensity")
    assert first is not None
    assert second is not None
    assert second.token > first.token
    assert (second.checksum, second.rows) == (first.checksum, first.rows)


def test_a_date_without_scores_is_refused(filled: Project, run: Run, jobs_redis_url: str) -> None:
    with pytest.raises(NothingToPublish, match="no scores as of 1998-06-01"):
        publish(filled.run(DAY - timedelta(days=1)), jobs_redis_url)


@pytest.mark.parametrize("damage", ["flipped", "lost", "doubled"])
def test_a_generation_that_differs_is_found(
    run: Run, store: Store, jobs_redis_url: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, jobs_redis_url)
    live = store.record("purchase_propensity")
    real = generation.read_back

    def after_damage(spread: DataFrame, built: generation.Generation) -> object:
        client = raw(store)
        first, second = (block_key(built.pipeline, built.token, bucket) for bucket in (0, 1))
        if damage == "flipped":
            client.setrange(first, 40, bytes([client.getrange(first, 40, 40)[0] ^ 1]))
        elif damage == "lost":
            client.delete(first)
        else:
            client.set(second, client.get(first))
        return real(spread, built)

    refusals = RefusalStore(store, "purchase_propensity")
    with monkeypatch.context() as patched:
        patched.setattr(generation, "read_back", after_damage)
        with pytest.raises(GenerationDiffers, match=r"generation \d+") as differs:
            publish(run, jobs_redis_url)
    assert store.record("purchase_propensity") == live
    refusal = refusals.read()[run.as_of.date()]
    assert (refusal.verdict, refusal.reason) == ("differs", str(differs.value))
    names = raw(store).scan_iter(match="scoreline:{purchase_propensity:*")
    assert len({name.rsplit(b":", 1)[1] for name in names}) == 1
    publish(run, jobs_redis_url)
    assert refusals.read() == {}


def test_a_ledger_that_was_lost_takes_no_live_token(
    filled: Project, run: Run, store: Store, jobs_redis_url: str, tmp_path: Path
) -> None:
    """Else the blocks of the live generation would be written over, before anything was verified."""
    for _ in range(2):
        publish(run, jobs_redis_url)
    first = store.head("purchase_propensity")
    ledger = Path(filled.settings.lake) / "publications"
    ledger.rename(tmp_path / "ledger")
    try:
        publish(run, jobs_redis_url)
        second = store.head("purchase_propensity")
    finally:
        shutil.rmtree(ledger)
        (tmp_path / "ledger").rename(ledger)
    assert first is not None
    assert second is not None
    assert second.token > first.token


def test_what_was_live_until_now_stays_though_the_ledger_missed_it(
    run: Run, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher that was killed right after its swap."""
    publish(run, jobs_redis_url)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", lambda *_: None)
        publish(run, jobs_redis_url)
    missed = store.head("purchase_propensity")
    assert missed is not None
    long_ago = timedelta(minutes=run.pipeline.schedule.timeout_minutes + 1)
    publish(replace(run, clock=Clock(long_ago)), jobs_redis_url)
    assert len(list(store.read_blocks(missed.pipeline, missed.token, range(missed.layout.buckets)))) > 0


def test_who_was_overtaken_does_not_go_live(
    run: Run, next_run: Run, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generation.write

    def overtaken(*given: Any) -> None:
        monkeypatch.setattr(generation, "write", real)
        publish(next_run, jobs_redis_url)
        real(*given)

    monkeypatch.setattr(generation, "write", overtaken)
    with pytest.raises(Overtaken, match="another publication began meanwhile"):
        publish(run, jobs_redis_url)
    head = store.head("purchase_propensity")
    assert head is not None
    assert head.as_of == microseconds(next_run.as_of)
    assert publish(run, jobs_redis_url) == "history only"


def test_a_head_that_becomes_unreadable_meanwhile_is_not_met_again_by_the_same_task(
    run: Run, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generation.write

    def damaged(*given: Any) -> None:
        real(*given)
        store.ask("SET", head_key(run.pipeline.name), "{}")

    monkeypatch.setattr(generation, "write", damaged)
    with pytest.raises(Overtaken, match=r"`scoreline republish` replaces that$"):
        publish(run, jobs_redis_url)


def test_scores_that_change_meanwhile_do_not_mix(
    filled: Project, run: Run, store: Store, jobs_redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One version of the table is published, whoever scores the date again at the same time."""
    other = register_small(filled.settings.mlflow_uri, tmp_path / "report", seed=3)
    before = filled.lake.read("scores/purchase_propensity").where(run.partition).collect()[0]
    real = generation.write

    def rescored(*given: Any) -> None:
        scored(filled, other, DAY, "other")
        real(*given)

    monkeypatch.setattr(generation, "write", rescored)
    publish(run, jobs_redis_url)
    head = store.head("purchase_propensity")
    scored(filled, ModelVersion(other.name, before.model_version, before.model_digest, other.features), DAY, "run-7")
    scores = filled.lake.read("scores/purchase_propensity").where(run.partition)
    assert head is not None
    assert head.model.version == before.model_version
    assert head.checksum == generation.expected(scores.select("key", "score"), head.layout).checksum


def test_keys_with_one_hash_get_another_salt(
    run: Run, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generation.write

    def collide(scores: DataFrame, built: generation.Generation, rows: int) -> None:
        twice = scores.unionByName(scores.limit(1)) if built.layout.salt == 0 else scores
        real(twice, built, rows)

    monkeypatch.setattr(generation, "write", collide)
    assert publish(run, jobs_redis_url) == "live"
    head = store.head("purchase_propensity")
    assert head is not None
    assert head.layout.salt == 1


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ((RefusalStore, "dates"), StoreUnavailable("Redis went away")),
        ((Ledger, "compact"), OSError("the lake went away")),
    ],
)
def test_what_cannot_be_cleaned_up_does_not_fail_what_is_live(
    run: Run,
    store: Store,
    jobs_redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[type, str],
    fault: Exception,
) -> None:
    """Its retry would publish all of it again."""

    def away(*_: object) -> None:
        raise fault

    monkeypatch.setattr(*place, away)
    assert publish(run, jobs_redis_url) == "live"
    assert store.head("purchase_propensity") == Ledger.of(run.settings, run.pipeline.name, run.clock).read().last


def test_the_last_generations_stay_and_older_ones_go(run: Run, store: Store, jobs_redis_url: str) -> None:
    """Once nobody can hold their head: each publication here is a minute after the one before."""
    heads = []
    for minute in range(run.pipeline.publication.keep + 2):
        later = Clock(timedelta(days=1, minutes=minute))
        publish(replace(run, clock=later), jobs_redis_url)
        heads.append(store.head("purchase_propensity"))
    there = [len(list(raw(store).scan_iter(match=f"*}}:{head.token}", count=10_000))) for head in heads if head]
    buckets = heads[-1].layout.buckets if heads[-1] else 0
    assert there == [0] * 2 + [buckets] * run.pipeline.publication.keep


def test_an_overlay_keeps_its_buckets_whatever_layout_the_next_generation_has(
    run: Run, store: Store, jobs_redis_url: str
) -> None:
    heads = []
    for keys_per_block in (64, 16):
        publish(declaring(run, keys_per_block=keys_per_block), jobs_redis_url)
        heads.append(store.head("purchase_propensity"))
    first, second = heads
    assert first is not None
    assert second is not None
    assert first.overlay == second.overlay == Overlay(first.layout.buckets)
    assert second.layout.buckets > first.layout.buckets
    assert second.epoch == first.epoch


def test_without_redis_it_says_so_and_a_later_try_goes_live(run: Run, store: Store, jobs_redis_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer"):
        publish(run, f"redis://127.0.0.1:{free_port()}/0")
    assert store.head("purchase_propensity") is None
    assert publish(run, jobs_redis_url) == "live"
