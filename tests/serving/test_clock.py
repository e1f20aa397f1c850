"""The clock and the settings: read from the environment, refused by name."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.clock import Clock, instant, microseconds
from serving.errors import SettingsError
from serving.settings import settings

SECOND = timedelta(seconds=5)


@pytest.fixture(autouse=True)
def fresh_settings() -> None:
    settings.cache_clear()


def test_the_real_clock_is_real() -> None:
    assert abs(Clock.parse("real").now() - datetime.now(UTC)) < SECOND


def test_a_set_clock_shows_its_time_and_runs_on() -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    clock = Clock.parse(f"1998-06-04T08:00:00+02:00@{hour_ago.isoformat()}")
    assert abs(clock.now() - datetime(1998, 6, 4, 7, tzinfo=UTC)) < SECOND
    assert clock.now().tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "now", "1998-06-04T00:00:00Z", "1998-06-04@2026-01-01", "1998-06-04T00:00:00Z@x", "a@b@c"]
)
def test_another_text_is_no_clock(text: str) -> None:
    with pytest.raises(ValueError, match="write real"):
        Clock.parse(text)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001  reason: the bounds must be naive
def test_microseconds_lose_nothing(moment: datetime) -> None:
    assert instant(microseconds(moment)) == moment


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORELINE_REDIS_URL", "rediss://user:secret@redis:6380/3")
    monkeypatch.setenv("SCORELINE_CLOCK", "1998-06-04T00:00:00Z@1998-06-05T00:00:00Z")
    assert settings().redis_url == "rediss://user:secret@redis:6380/3"
    assert settings().clock.offset == timedelta(days=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SCORELINE_CLOCK", "yesterday"), ("SCORELINE_PORT", "70000"), ("SCORELINE_REDIS_URL", "http://redis")],
)
def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        settings()
