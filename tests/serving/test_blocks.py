"""Packing and unpacking are inverse; what is wrong is refused, in arrays and in blocks read back."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.blocks import Tally, audit, pack, pack_buckets, tally, unpack
from serving.errors import BlockCorrupt, HashCollision, LayoutError
from serving.layout import Layout

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROWS = st.dictionaries(st.integers(0, 2**64 - 1), FLOATS, max_size=60)


def sorted_arrays(rows: dict[int, float]) -> tuple[Any, list[Any]]:
    hashes = np.array(sorted(rows), dtype=np.uint64)
    return hashes, [np.array([rows[int(hashed)] for hashed in hashes], dtype=np.float32)]


@given(ROWS, st.integers(1, 2**40))
def test_unpack_is_the_inverse_of_pack(rows: dict[int, float], token: int) -> None:
    hashes, (scores,) = sorted_arrays(rows)
    read, (column,) = unpack(Layout(buckets=1), token, pack(Layout(buckets=1), token, hashes, [scores]))
    assert (read.tobytes(), column.tobytes()) == (hashes.tobytes(), scores.tobytes())


@given(ROWS, st.integers(1, 50))
def test_every_bucket_has_a_block_and_the_blocks_hold_all_rows(rows: dict[int, float], buckets: int) -> None:
    layout = Layout(buckets=buckets)
    hashes, columns = sorted_arrays(rows)
    blocks = dict(pack_buckets(layout, 1, range(buckets), hashes, columns))
    assert list(blocks) == list(range(buckets))
    for hashed, score in rows.items():
        assert layout.finder(1)(blocks[layout.bucket_of(hashed)], hashed) == (score,)
    assert audit(layout, 1, list(blocks.items())) == tally(hashes, columns)


@given(ROWS, st.integers(0, 50))
def test_parts_of_the_buckets_pack_to_the_same_blocks(rows: dict[int, float], cut: int) -> None:
    layout = Layout(buckets=50)
    hashes, (scores,) = sorted_arrays(rows)
    first = np.array([layout.bucket_of(int(hashed)) < cut for hashed in hashes], dtype=bool)
    low = list(pack_buckets(layout, 1, range(cut), hashes[first], [scores[first]]))
    high = list(pack_buckets(layout, 1, range(cut, 50), hashes[~first], [scores[~first]]))
    assert low + high == list(pack_buckets(layout, 1, range(50), hashes, [scores]))


@given(ROWS.filter(bool), st.randoms(use_true_random=False))
def test_a_flipped_bit_is_noticed(rows: dict[int, float], random: Any) -> None:
    layout = Layout(buckets=1)
    hashes, columns = sorted_arrays(rows)
    block = bytearray(pack(layout, 1, hashes, columns))
    block[random.randrange(len(block))] ^= 1 << random.randrange(8)
    try:
        found = audit(layout, 1, [(0, bytes(block))])
    except BlockCorrupt:
        return
    assert found != tally(hashes, columns)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), FLOATS), max_size=30), st.randoms(use_true_random=False))
def test_a_tally_is_that_of_its_parts_in_any_order(rows: list[tuple[int, float]], random: Any) -> None:
    def tallied(part: list[tuple[int, float]]) -> Tally:
        hashes = np.array([hashed for hashed, _ in part], dtype=np.uint64)
        return tally(hashes, [np.array([score for _, score in part], dtype=np.float32)])

    shuffled = random.sample(rows, len(rows))
    cut = random.randint(0, len(rows))
    assert tallied(shuffled[:cut]) + tallied(shuffled[cut:]) == tallied(rows)


def test_swapped_values_of_two_keys_change_the_tally() -> None:
    hashes = np.array([1, 2], np.uint64)
    assert tally(hashes, [np.array([0.1, 0.2], np.float32)]) != tally(hashes, [np.array([0.2, 0.1], np.float32)])


def test_two_keys_with_one_hash_are_refused() -> None:
    hashes = np.array([1, 7, 7], np.uint64)
    with pytest.raises(HashCollision, match=r"hash 7 .* another salt"):
        list(pack_buckets(Layout(buckets=1), 1, range(1), hashes, [np.zeros(3, np.float32)]))


REFUSED: dict[str, tuple[Any, Any]] = {
    "out of order": (np.array([2, 1], np.uint64), np.zeros(2, np.float32)),
    "not uint64": (np.array([1, 2], np.int64), np.zeros(2, np.float32)),
    "cast it first": (np.array([1, 2], np.uint64), np.zeros(2, np.float64)),
    r"not float32 \(2,\)": (np.array([1, 2], np.uint64), np.zeros(3, np.float32)),
    "not finite": (np.array([1, 2], np.uint64), np.array([1, np.nan], np.float32)),
    "partition by bucket": (np.array([1, 2**63], np.uint64), np.zeros(2, np.float32)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_arrays_that_do_not_fit_are_refused(message: str) -> None:
    hashes, column = REFUSED[message]
    with pytest.raises(LayoutError, match=message):
        list(pack_buckets(Layout(buckets=2), 1, range(1), hashes, [column]))


def test_a_block_of_too_many_keys_is_refused() -> None:
    hashes = np.arange(2**16, dtype=np.uint64)
    with pytest.raises(LayoutError, match="more buckets"):
        pack(Layout(buckets=1), 1, hashes, [np.zeros(2**16, np.float32)])


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "out of order": lambda hashes: hashes[::-1],
    "another bucket": lambda hashes: hashes - np.uint64(2**63),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_a_block_that_no_reader_could_rely_on_fails_its_audit(message: str) -> None:
    layout, first = Layout(buckets=3), np.array([1, 2], np.uint64)
    of_bucket_1 = first + np.uint64(2**63)
    blocks = [pack(layout, 1, part, [np.zeros(2, np.float32)]) for part in (first, of_bucket_1)]
    damaged = pack(layout, 1, np.ascontiguousarray(DAMAGE[message](of_bucket_1)), [np.zeros(2, np.float32)])
    audit(layout, 1, [(1, blocks[1]), (0, blocks[0])])
    with pytest.raises(BlockCorrupt, match=f"bucket 1 of generation 1: .*{message}"):
        audit(layout, 1, [(0, blocks[0]), (1, damaged)])
