"""Head records survive the wire, and their order decides what is live."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serving.errors import HeadUnreadable
from serving.head import Fallback, Head, Limits, parse_head
from serving.layout import Layout
from tests.serving.publishing import head_for

BASE = head_for("p", 1, {"a": 0.5})
HEADS = st.builds(
    lambda as_of, token, checksum, fallback: replace(
        BASE, as_of=as_of, token=token, checksum=checksum, fallback=fallback, limits=Limits(10, 20)
    ),
    st.integers(1 - 2**53, 2**53 - 1),
    st.integers(1, 2**53 - 1),
    st.integers(0, 2**64 - 1),
    st.none() | st.builds(Fallback, st.just("constant"), st.floats(0, 1)),
)


@given(HEADS)
def test_a_head_reads_back_as_it_was_written(head: Head) -> None:
    assert parse_head(head.to_json()) == head
    assert parse_head(head.to_json()).to_json() == head.to_json()


def test_the_checksum_travels_as_text() -> None:
    assert b'"checksum":"18446744073709551615"' in replace(BASE, checksum=2**64 - 1).to_json()


@pytest.mark.parametrize(("later", "overtaken"), [(-1, True), (0, False), (1, False)])
def test_only_an_older_as_of_is_history_only(later: int, *, overtaken: bool) -> None:
    assert BASE.overtakes(BASE.as_of + later) == overtaken


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", BASE.to_json().replace(b'"format":1', b'"format":2', 1)],
    ids=["none", "{}", "[]", "format"],
)
def test_a_record_of_another_format_is_refused(raw: bytes) -> None:
    with pytest.raises(HeadUnreadable, match="upgrade"):
        parse_head(raw)


@pytest.mark.parametrize("field", ["token", "rows", "as_of", "published_at", "events_version"])
def test_a_number_that_a_double_cannot_hold_is_refused(field: str) -> None:
    record = json.loads(BASE.to_json())
    assert getattr(parse_head(json.dumps({**record, field: 2**53 - 1}).encode()), field) == 2**53 - 1
    with pytest.raises(HeadUnreadable, match=field):
        parse_head(json.dumps({**record, field: 2**53}).encode())


def test_a_generation_without_a_score_is_refused() -> None:
    with pytest.raises(ValidationError, match="no column score"):
        replace(BASE, layout=Layout(buckets=1, columns=(("rank", "int32"),)))


@pytest.mark.parametrize("name", ["", "a b", "a{b", "a}b", "a:b", "ü", "../x"])
def test_a_name_that_would_break_the_keys_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        replace(BASE, pipeline=name)
