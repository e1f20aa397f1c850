"""A key out of a generation and its overlays: one block changes, and stays what its other keys would make."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.blocks import Tally, audit, tally
from serving.erasing import EraseStore, row_of, without
from serving.head import Head, Overlay
from serving.layout import Layout
from serving.overlay import Fresh, OverlayStore
from serving.reader import Reader
from serving.store import Store
from tests.serving.publishing import arrays, head_for, publish, write

SCORES = {f"k{number}": number / 100 for number in range(40)}
REST = {key: score for key, score in SCORES.items() if key != "k7"}


def blocks(store: Store, head: Head) -> list[tuple[int, bytes]]:
    return list(store.read_blocks(head.pipeline, head.token, range(head.layout.buckets)))


@pytest.fixture
def head(any_store: Store) -> Iterator[Head]:
    head = head_for("erased", 3, SCORES)
    write(any_store, head, SCORES)
    yield head
    any_store.remove_generation(head.pipeline, head.token, range(head.layout.buckets))


def test_what_is_left_is_what_the_other_keys_would_have_been_written_as(any_store: Store, head: Head) -> None:
    erasing = EraseStore(any_store, "k7")
    found = erasing.find(head)
    assert found is not None
    assert erasing.drop(head)
    left = without(head, found.row)
    assert audit(head.layout, head.token, blocks(any_store, head)) == Tally(left.rows, left.checksum)
    after = blocks(any_store, head)
    write(any_store, replace(left, layout=head.layout), REST)
    assert blocks(any_store, head) == after
    assert not erasing.drop(head)
    assert erasing.find(head) is None


def test_a_key_that_is_not_there_changes_nothing(any_store: Store, head: Head) -> None:
    before = blocks(any_store, head)
    assert not EraseStore(any_store, "unknown").drop(head)
    assert not EraseStore(any_store, "k7").drop(replace(head, token=99)), "of a generation that is not there"
    assert blocks(any_store, head) == before


def test_a_block_that_changes_at_that_moment_is_read_again(
    any_store: Store, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EraseStore.find
    others = iter(["k7"])  # the whole block is written again, once, after it was read

    def find(erasing: EraseStore, asked: Head) -> object:
        found = real(erasing, asked)
        for _ in others:
            EraseStore(any_store, next(key for key in SCORES if key != "k7" and _together(asked.layout, key))).drop(
                asked
            )
        return found

    monkeypatch.setattr(EraseStore, "find", find)
    assert EraseStore(any_store, "k7").drop(head)
    monkeypatch.undo()
    assert audit(head.layout, head.token, blocks(any_store, head)).rows == len(SCORES) - 2


def _together(layout: Layout, key: str) -> bool:
    return layout.bucket_of(layout.hash_of(key)) == layout.bucket_of(layout.hash_of("k7"))


def test_entries_of_every_epoch_go_and_those_of_others_stay(any_store: Store) -> None:
    heads = [replace(head_for("fresh", 1, SCORES), epoch=epoch, overlay=Overlay(5)) for epoch in (1, 2)]
    overlay = OverlayStore(any_store)
    for each in heads:
        overlay.write(each, [Fresh(key, each.as_of + 1, (0.5,)) for key in ("k7", "k8")])
    epochs = [(each.epoch, Overlay(5)) for each in heads]
    assert EraseStore(any_store, "k7").drop_fresh("fresh", epochs) == 2
    assert EraseStore(any_store, "k7").drop_fresh("fresh", epochs) == 0
    assert [entry.key for each in heads for entry in overlay.entries(each)] == ["k8", "k8"]


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0, 1, width=32), min_size=1))
@settings(max_examples=50)
def test_a_row_taken_off_leaves_the_sum_of_the_others(scores: dict[str, float]) -> None:
    layout, key = Layout(buckets=3, salt=2), min(scores)
    whole, row = tally(*arrays(layout, scores)), row_of(layout, key, scores[key])
    rest = {other: score for other, score in scores.items() if other != key}
    head = replace(head_for("sum", 1, SCORES), rows=whole.rows, checksum=whole.checksum)
    left = without(head, row)
    assert Tally(left.rows, left.checksum) == (tally(*arrays(layout, rest)) if rest else Tally())


def test_a_reader_of_the_old_head_finds_the_key_unknown_and_the_others_as_before(store: Store) -> None:
    head = publish(store, "read", 1, SCORES)

    async def lookups() -> list[list[object]]:
        reader = Reader.at(store.url)
        try:
            before = (await reader.lookup("read", list(SCORES)))[1]
            EraseStore(store, "k7").drop(head)
            held = (await reader.lookup("read", list(SCORES)))[1]
            left = without(head, row_of(head.layout, "k7", SCORES["k7"]))
            assert store.replace(head.to_json(), left) == "live"
            after = (await reader.lookup("read", list(SCORES)))[1]
        finally:
            await reader.close()
        return [list(found) for found in (before, held, after)]

    before, held, after = asyncio.run(lookups())
    assert held == after
    gone = list(SCORES).index("k7")
    assert after[gone] is None
    assert [*held[:gone], *held[gone + 1 :]] == [*before[:gone], *before[gone + 1 :]]
