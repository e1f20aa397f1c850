"""The overlay against a plain dict: the newest as_of of a key wins, in any order and however often it is written."""

import struct
from dataclasses import replace
from itertools import count
from math import inf, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.errors import BlockCorrupt, LayoutError
from serving.head import Head, Overlay
from serving.layout import Layout
from serving.overlay import EntryCodec, Fresh, OverlayStore
from serving.store import Store
from tests.serving.publishing import head_for

NUMBER = count()


@pytest.fixture(scope="module")
def store(any_store: Store) -> Store:
    return any_store


LAYOUT = Layout(buckets=1, columns=(("score", "float32"), ("visits", "int32"), ("active", "bool")))
KEYS = st.sampled_from(["", "a", "a:b", "{x}", "käse", "7" * 40])
ENTRIES = st.lists(
    st.builds(
        Fresh,
        KEYS,
        st.one_of(st.integers(1, 2), st.integers(-(2**53) + 1, 2**53 - 1)),
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**31), 2**31 - 1), st.booleans()
        ),
        st.integers(0, 2),
    )
)


def head(pipeline: str = "", buckets: int = 3) -> Head:
    """Return a head with an overlay, of a pipeline of its own."""
    name = pipeline or f"overlay-{next(NUMBER)}"
    return replace(head_for(name, 1, {"k": 0.5}), layout=LAYOUT, overlay=Overlay(buckets))


def held(store: Store, of: Head) -> dict[str, Fresh]:
    """Return all entries of a head's overlay, by key."""
    return {entry.key: entry for entry in OverlayStore(store).entries(of)}


@given(ENTRIES)
@settings(max_examples=60)
def test_the_newest_wins(store: Store, entries: list[Fresh]) -> None:
    """Of the same as_of that with the higher version, for it knows more."""
    of, model = head(), dict[str, Fresh]()
    for entry in entries:
        before = model.get(entry.key)
        if before is None or (before.as_of, before.version) < (entry.as_of, entry.version):
            model[entry.key] = entry
    overlay = OverlayStore(store)
    overlay.write(of, entries)
    assert held(store, of) == model
    assert overlay.write(of, entries) == 0


def test_what_the_generation_has_overtaken_is_dropped(store: Store) -> None:
    of, overlay = head(), OverlayStore(store)
    values = (0.5, 1, True)
    overlay.write(of, [Fresh(f"k{n}", of.as_of + n, values) for n in range(-2, 3)])
    assert overlay.drop_overtaken(of) == 3
    assert held(store, of).keys() == {"k1", "k2"}


def test_an_epoch_is_dropped_whole_and_others_stay(store: Store) -> None:
    of, overlay = head(), OverlayStore(store)
    later = replace(of, epoch=2)
    for each in (of, later):
        overlay.write(each, [Fresh("k", 1, (0.5, 1, True))])
    assert of.overlay
    assert overlay.drop_epoch(of.pipeline, 1, of.overlay) == 1
    assert held(store, of) == {}
    assert held(store, later).keys() == {"k"}


def test_many_entries_need_several_round_trips(store: Store) -> None:
    of, overlay = head(buckets=500), OverlayStore(store)
    assert overlay.write(of, [Fresh(f"k{n}", n, (0.5, n, True)) for n in range(10_000)]) == 10_000
    assert len(held(store, of)) == 10_000


def test_a_generation_without_overlay_takes_no_entries(store: Store) -> None:
    with pytest.raises(ValueError, match="published without an overlay"):
        OverlayStore(store).write(replace(head(), overlay=None), [])


SOUND = EntryCodec(LAYOUT).pack(Fresh("k", 2**53 - 1, (0.5, 1, True)))
BEYOND = [(2**53, 0.5), (-(2**53), 0.5), (1_780_000_000 * 10**9, 0.5), (1, nan), (1, inf), (1, -inf)]


@pytest.mark.parametrize(("as_of", "score"), BEYOND)
def test_what_no_answer_can_tell_is_neither_written_nor_read(as_of: int, score: float) -> None:
    """An as_of in nanoseconds is no date, and JSON has neither NaN nor infinity."""
    with pytest.raises(LayoutError, match=r"an overlay entry as of .* microseconds.*finite"):
        EntryCodec(LAYOUT).pack(Fresh("k", as_of, (score, 1, True)))
    written = SOUND[:2] + struct.pack("<qqf", as_of, 0, score) + SOUND[22:]
    with pytest.raises(BlockCorrupt, match=r"an overlay entry as of .* microseconds.*finite"):
        EntryCodec(LAYOUT).unpack(written)


@pytest.mark.parametrize("entry", [b"", b"\x01" + bytes(26), bytes(3)])
def test_an_entry_of_another_format_is_refused(entry: bytes) -> None:
    with pytest.raises(BlockCorrupt, match="overlay entry"):
        EntryCodec(LAYOUT).unpack(entry)
