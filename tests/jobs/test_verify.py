"""Verify and repair: every block of the live generation is what the rows say that it was made of."""

from dataclasses import replace

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame

from jobs.errors import DataFault, GenerationDiffers
from jobs.publication import generation
from jobs.publication.generation import Comparison, Generation
from jobs.publication.publish import publish
from jobs.publication.verify import repair, verify
from serving.head import Head
from serving.keys import block_key
from serving.store import Store
from tests.jobs.populations import DAY, NAME, at, numbered, put, supersede
from tests.project import Project
from tests.serving.publishing import raw

ROWS = 3000


def damaged(store: Store, head: Head) -> None:
    """Lose two blocks, change a byte of a third, and put a fourth in place of a fifth."""
    names = [block_key(NAME, head.token, bucket) for bucket in range(5)]
    raw(store).delete(*names[:2])
    raw(store).setrange(names[2], 40, b"\xff")
    raw(store).copy(names[3], names[4], replace=True)


def test_what_is_damaged_is_counted_and_alone_written_again(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    publish(run, jobs_redis_url)
    head = store.head(NAME)
    assert head is not None
    buckets = head.layout.buckets
    assert verify(run, jobs_redis_url, head).endswith(f"all {buckets} blocks are as the table says")
    right = dict(store.read_blocks(NAME, head.token, range(buckets)))

    damaged(store, head)
    words = rf"generation 1 as of 1998-06-02: of {buckets} blocks 2 are missing and 2 differ \(such as bucket 0, 1, 2"
    with pytest.raises(GenerationDiffers, match=words + r".*`scoreline verify purchase_propensity --repair` mends"):
        verify(run, jobs_redis_url, head)
    assert store.count_blocks(NAME, head.token, range(buckets)) == buckets - 2
    assert repair(run, jobs_redis_url, head).endswith("all are repaired")
    assert dict(store.read_blocks(NAME, head.token, range(buckets))) == right
    ledger = DeltaTable(project.settings.table(f"publications/{NAME}")).to_pyarrow_table().to_pylist()
    [repaired] = [row for row in ledger if row["event"] == "repaired"]
    assert (repaired["token"], repaired["run_id"]) == (head.token, run.run_id)
    assert f"of {buckets} blocks 2 are missing and 2 differ" in repaired["note"]

    supersede(project, DAY)
    put(project, DAY, numbered(project, ROWS, "0.5"))
    damaged(store, head)
    repair(run, jobs_redis_url, head)
    assert dict(store.read_blocks(NAME, head.token, range(buckets))) == right

    with pytest.raises(DataFault, match=r"has no more what generation 1 .* `scoreline publish .* --day 1998-06-01`"):
        repair(run, jobs_redis_url, replace(head, checksum=1))


def test_what_is_damaged_again_at_once_is_not_called_repaired(
    project: Project, store: Store, jobs_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    publish(run, jobs_redis_url)
    head, real = store.head(NAME), generation.repair
    assert head is not None

    def in_vain(scores: DataFrame, built: Generation, rows: int) -> int:
        written = real(scores, built, rows)
        damaged(store, head)
        return written

    damaged(store, head)
    monkeypatch.setattr(generation, "repair", in_vain)
    with pytest.raises(GenerationDiffers, match=r"2 are missing and 2 differ .* after 4 were repaired"):
        repair(run, jobs_redis_url, head)


def test_a_generation_that_is_not_live_any_more_is_not_repaired(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    run = at(put(project, DAY, numbered(project, ROWS)))
    publish(run, jobs_redis_url)
    first = store.head(NAME)
    assert first is not None
    publish(at(run, 1), jobs_redis_url)
    damaged(store, first)
    with pytest.raises(GenerationDiffers, match="after 0 were repaired: another head went live meanwhile"):
        repair(run, jobs_redis_url, first)
    assert store.count_blocks(NAME, first.token, range(first.layout.buckets)) == first.layout.buckets - 2


def test_where_all_differ_no_list_of_them_reaches_the_driver(
    project: Project, store: Store, jobs_redis_url: str
) -> None:
    run = put(project, DAY, numbered(project, ROWS))
    publish(run, jobs_redis_url)
    head = store.head(NAME)
    assert head is not None
    store.unlink(block_key(NAME, head.token, bucket) for bucket in range(head.layout.buckets))
    rows = project.lake.read(f"scores/{NAME}").select("key", "score")
    found = generation.compare(rows, Generation(jobs_redis_url, NAME, head.token, head.layout), ROWS)
    assert replace(found, examples=[]) == Comparison(head.layout.buckets, head.layout.buckets, 0, [])
    assert len(found.examples) == generation.EXAMPLES
