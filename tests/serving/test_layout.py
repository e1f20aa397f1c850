"""The layout: the same hash and bucket in Python and in Spark, and lookups in a block as in a dict."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession

from serving.blocks import pack
from serving.errors import BlockCorrupt
from serving.layout import Layout
from tests.conftest import ROOT
from tests.serving.publishing import arrays

KEYS = [
    "",
    "0",
    "00042",
    "customer-1",
    "a/b",
    "ключ",
    "鍵",
    "🙂👍🏽",
    "e\u0301",
    "\u00e9",
    "\x00",
    "x" * 31,
    "x" * 32,
    "x" * 1000,
    "ключ" * 4,
    "ключ-鍵-🙂👍🏽" * 20,
]
WRITABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.mark.parametrize("salt", [0, 1, 2**53 - 1])
def test_hash_and_bucket_are_those_of_spark(spark: SparkSession, salt: int) -> None:
    layout = Layout(buckets=1_000_003, salt=salt)
    keys = spark.createDataFrame([(key,) for key in KEYS + [f"k{i}" for i in range(500)]], "key string")
    hashed = keys.selectExpr("key", f"{layout.hash_sql('key')} AS hash")
    for row in hashed.selectExpr("key", "hash", f"{layout.bucket_sql('hash')} AS bucket").collect():
        unsigned = row.hash % 2**64
        assert (unsigned, row.bucket) == (layout.hash_of(row.key), layout.bucket_of(unsigned)), row.key


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 2**31 - 1))
def test_buckets_are_in_range_and_never_fall_as_hashes_rise(one: int, other: int, buckets: int) -> None:
    layout = Layout(buckets=buckets)
    low, high = sorted((one, other))
    assert 0 <= layout.bucket_of(low) <= layout.bucket_of(high) < buckets


@given(st.dictionaries(WRITABLE, st.floats(width=32, allow_nan=False, allow_infinity=False)), WRITABLE)
def test_a_block_finds_what_a_dict_finds(scores: dict[str, float], other: str) -> None:
    layout = Layout(buckets=1, salt=9)
    block = pack(layout, 5, *arrays(layout, scores))
    for key in [*scores, other]:
        expected = (scores[key],) if key in scores else None
        assert layout.finder(5)(block, layout.hash_of(key)) == expected


@pytest.mark.parametrize("there", [True, False])
def test_a_hash_is_not_found_astride_of_two_others(*, there: bool) -> None:
    astride = 0x01020304_05060708
    hashes = [0x05060708_00000000, 0xFFFFFFFF_01020304]  # the bytes of the one, then those of the other, hold it
    hashes = [astride, *hashes] if there else hashes
    values = np.arange(len(hashes), dtype=np.float32)
    layout = Layout(buckets=1)
    found = layout.finder(1)(pack(layout, 1, np.array(sorted(hashes), np.uint64), [values]), astride)
    assert found == ((0.0,) if there else None)


def test_a_row_of_several_columns_is_found_in_their_order() -> None:
    columns: list[Any] = [("f", "float32"), ("d", "float64"), ("i", "int32"), ("h", "uint16"), ("b", "bool")]
    layout = Layout(buckets=1, columns=tuple(columns))
    values = [np.array([1.5, 2.5], "<f4"), np.array([0.1, 0.2], "<f8"), np.array([-1, 7], "<i4")]
    values += [np.array([65535, 0], "<u2"), np.array([True, False])]
    block = pack(layout, 1, np.array([3, 2**64 - 1], np.uint64), values)
    assert len(block) == 8 + 2 * layout.width
    assert layout.finder(1)(block, 3) == (1.5, 0.1, -1, 65535, True)
    assert layout.finder(1)(block, 2**64 - 1) == (2.5, 0.2, 7, 0, False)


def test_the_bytes_of_a_block_are_those_of_the_page_that_documents_them() -> None:
    block = pack(Layout(buckets=1), 0x1_0000_0007, np.array([1, 258], np.uint64), [np.array([0.5, -2.0], np.float32)])
    expected = "0100 0200 07000000 0100000000000000 0201000000000000 0000003f 000000c0"
    assert block == bytes.fromhex(expected)
    assert f"\n{expected}\n" in (ROOT / "infra/docs/redis-contract.md").read_text()


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"\x01\x00\x00",
        bytes.fromhex("0200000005000000"),
        bytes.fromhex("0100000006000000"),
        b"\x01\0\x01\0\x05\0\0\0",
    ],
    ids=["empty", "short", "format", "token", "length"],
)
def test_a_block_of_another_format_token_or_length_is_refused(block: bytes) -> None:
    with pytest.raises(BlockCorrupt, match="verify --repair"):
        Layout(buckets=1).finder(5)(block, 1)


@pytest.mark.parametrize(("rows", "buckets"), [(0, 1), (64, 1), (65, 2), (10_000_000, 156_250)])
def test_a_layout_fits_the_rows(rows: int, buckets: int) -> None:
    assert Layout.fitting(rows, 64).buckets == buckets


@pytest.mark.parametrize(("buckets", "salt"), [(0, 0), (2**31, 0), (1, -1), (1, 2**53)])
def test_an_impossible_layout_is_refused(buckets: int, salt: int) -> None:
    with pytest.raises(ValidationError):
        Layout(buckets=buckets, salt=salt)
