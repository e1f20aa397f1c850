"""What a stream says of itself, and how the service passes it on."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.client import Client
from serving.clock import Clock
from serving.errors import StreamUnreadable
from serving.keys import stream_key
from serving.store import Store
from serving.stream import BOUNDS_S, SILENCE, Freshness, StreamRecord, parse_stream
from tests.serving.publishing import publish

NOW = Clock().microseconds()
RECORD = StreamRecord(
    state="running", query_id="q", started_at=NOW, told_at=NOW, batch=7, version=9, keys=3, quarantined=1,
    behind=4, behind_since=NOW - 5_000_000, progressed_at=NOW - 6_000_000,
    freshness=Freshness().with_all([0.1, 0.7, 4000.0]),
)  # fmt: skip


def test_a_record_is_read_as_it_was_written() -> None:
    assert parse_stream(RECORD.to_json()) == RECORD
    with pytest.raises(StreamUnreadable, match="restart the stream"):
        parse_stream(b"{}")


def test_a_stream_that_says_nothing_any_more_is_dead() -> None:
    assert RECORD.is_alive(NOW + SILENCE - 1)
    assert not RECORD.is_alive(NOW + SILENCE)
    assert not StreamRecord(state="stopped", query_id="q", started_at=NOW, told_at=NOW).is_alive(NOW)


@given(st.lists(st.floats(0, 10_000), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_first_bound_that_so_many_kept(delays: list[float], share: float) -> None:
    bound = Freshness().with_all(delays).quantile(share)
    assert bound is not None
    below = [each for each in (0.0, *BOUNDS_S) if each < bound]
    assert sum(delay <= bound for delay in delays) >= share * len(delays)
    assert sum(delay <= below[-1] for delay in delays) < share * len(delays) or below[-1] == 0


def test_without_a_delay_there_is_no_quantile() -> None:
    assert Freshness().quantile(0.5) is None


def test_metrics_tell_of_each_stream(store: Store, client: Client, service_url: str) -> None:
    import httpx

    publish(store, "streamed", 1, {"a": 0.5})
    publish(store, "unreadable-stream", 1, {"a": 0.5})
    now = Clock().microseconds()  # the module may have been read long before
    store.ask("SET", stream_key("streamed"), replace(RECORD, told_at=now).to_json())
    store.ask("SET", stream_key("unreadable-stream"), b"{}")
    text = httpx.get(f"{service_url}/metrics").text
    for line in (
        'scoreline_stream_up{pipeline="streamed"} 1.0',
        'scoreline_stream_scores_total{pipeline="streamed"} 3.0',
        'scoreline_stream_quarantined_total{pipeline="streamed"} 1.0',
        'scoreline_stream_freshness_seconds_bucket{le="1.0",pipeline="streamed"} 2.0',
        'scoreline_stream_freshness_seconds_bucket{le="+Inf",pipeline="streamed"} 3.0',
    ):
        assert line in text.splitlines()
    assert 'scoreline_stream_up{pipeline="unreadable-stream"}' not in text
    assert 'scoreline_stream_lag_appends{pipeline="streamed"} 4.0' in text.splitlines()
    for name, seconds in (("lag", 5), ("progress_age", 6)):
        (value,) = re.findall(rf'^scoreline_stream_{name}_seconds{{pipeline="streamed"}} (.*)$', text, re.MULTILINE)
        assert float(value) >= seconds


def test_who_has_read_all_has_no_lag() -> None:
    assert StreamRecord(state="running", query_id="q", started_at=NOW, told_at=NOW).lag_seconds(NOW) == 0
    assert RECORD.lag_seconds(NOW + 1_000_000) == 6
