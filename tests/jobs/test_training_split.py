"""The split in time: no part has seen a day that a later one is judged on, and nothing is wasted."""

import re
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobs.errors import TooLittleHistory
from jobs.spec.pipeline import Training
from jobs.training.split import Split, mature_dates, split

FIRST = date(1997, 4, 5)
DECLARED = st.builds(
    Training,
    first_as_of=st.just(FIRST),
    every_days=st.integers(1, 20),
    calibration_days=st.integers(1, 60),
    test_days=st.integers(1, 60),
)
HORIZONS = st.integers(1, 90).map(lambda days: timedelta(days=days))
HISTORIES = st.integers(0, 600).map(lambda days: midnight(FIRST) + timedelta(days=days))


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


@given(DECLARED, HORIZONS, HISTORIES)
def test_only_labels_that_are_mature_are_used(training: Training, horizon: timedelta, as_of: datetime) -> None:
    dates = mature_dates(training, horizon, as_of)
    assert all(day + horizon <= as_of for day in dates)
    following = midnight(FIRST) + len(dates) * timedelta(days=training.every_days)
    assert following + horizon > as_of


@given(DECLARED, HORIZONS, st.integers(0, 300))
def test_parts_are_a_horizon_apart_and_nothing_is_wasted(training: Training, horizon: timedelta, more: int) -> None:
    """With the history that the refusal asks for, or any number of days more."""
    with pytest.raises(TooLittleHistory) as refused:
        split((), horizon, training)
    enough = re.search(r"(\d+) days after first_as_of are always enough", str(refused.value))
    assert enough
    dates = mature_dates(training, horizon, midnight(FIRST) + timedelta(days=int(enough[1]) + more))
    refuse_overlaps(split(dates, horizon, training), dates, horizon, training)


def refuse_overlaps(parts: Split, dates: tuple[datetime, ...], horizon: timedelta, training: Training) -> None:
    assert max(parts.train) + horizon <= min(parts.calibration)
    assert max(parts.calibration) + horizon <= min(parts.test)
    assert max(parts.test) == max(dates)
    for part, days in ((parts.calibration, training.calibration_days), (parts.test, training.test_days)):
        assert max(part) - min(part) < timedelta(days=days)
    left_out = set(dates) - set(parts.dates)
    # Whatever is in no part has labels that reach into the next one, or lies before a window that is full.
    for day in left_out:
        following = min(part for part in (min(parts.calibration), min(parts.test)) if part > day)
        assert day + horizon > following
    assert list(parts.dates) == sorted(set(parts.dates))


@given(DECLARED, HORIZONS, st.integers(0, 150))
def test_too_little_history_is_refused_with_a_remedy(training: Training, horizon: timedelta, days: int) -> None:
    assume(days < 3 * horizon.days)
    dates = mature_dates(training, horizon, midnight(FIRST) + timedelta(days=days))
    with pytest.raises(TooLittleHistory, match="train at a later --as-of"):
        split(dates, horizon, training)


def test_the_demo_knows_nothing_after_its_as_of() -> None:
    training = Training(first_as_of=FIRST, every_days=7, calibration_days=28, test_days=35)
    horizon = timedelta(days=60)
    parts = split(mature_dates(training, horizon, midnight(date(1998, 6, 1))), horizon, training)
    assert (min(parts.train), max(parts.train)) == (midnight(FIRST), midnight(date(1997, 10, 4)))
    assert (min(parts.calibration), max(parts.calibration)) == (
        midnight(date(1997, 12, 6)),
        midnight(date(1997, 12, 27)),
    )
    assert (min(parts.test), max(parts.test)) == (midnight(date(1998, 2, 28)), midnight(date(1998, 3, 28)))
