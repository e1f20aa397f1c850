"""The as_of dates of a training set and their split in time: pure, and never random."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from jobs.errors import TooLittleHistory
from jobs.spec.pipeline import Training


@dataclass(frozen=True)
class Split:
    """as_of dates (UTC, ascending) by what they are for; between two parts lies at least the label's horizon."""

    train: tuple[datetime, ...]
    calibration: tuple[datetime, ...]
    test: tuple[datetime, ...]

    @property
    def parts(self) -> dict[str, tuple[datetime, ...]]:
        """The three parts by name, in time's order."""
        return {"train": self.train, "calibration": self.calibration, "test": self.test}

    @property
    def dates(self) -> tuple[datetime, ...]:
        """All dates of the three parts, ascending."""
        return self.train + self.calibration + self.test


def mature_dates(training: Training, horizon: timedelta, as_of: datetime) -> tuple[datetime, ...]:
    """Return the declared as_of dates whose labels are known at `as_of`: date + horizon <= as_of."""
    date = datetime.combine(training.first_as_of, time(), UTC)
    dates = []
    while date + horizon <= as_of:
        dates.append(date)
        date += timedelta(days=training.every_days)
    return tuple(dates)


def split(dates: Sequence[datetime], horizon: timedelta, training: Training) -> Split:
    """Return `dates` split in time: the last `test_days` test, `calibration_days` before calibrate, the rest train.

    A label looks `horizon` ahead. So that no part has seen a day that a later part is judged on, the dates whose labels
    reach into the next part are left out (the embargo).

    Raises:
        TooLittleHistory: a part would be empty.
    """
    test = _last(dates, timedelta(days=training.test_days))
    calibration = _last(_before(dates, test, horizon), timedelta(days=training.calibration_days))
    train = _before(dates, calibration, horizon)
    if not train:
        raise TooLittleHistory(_too_little(dates, horizon, training))
    return Split(tuple(train), tuple(calibration), tuple(test))


def _last(dates: Sequence[datetime], window: timedelta) -> Sequence[datetime]:
    return [date for date in dates if date > max(dates) - window]


def _before(dates: Sequence[datetime], part: Sequence[datetime], horizon: timedelta) -> Sequence[datetime]:
    return [date for date in dates if part and date + horizon <= min(part)]


def _too_little(dates: Sequence[datetime], horizon: timedelta, training: Training) -> str:
    enough = 3 * (horizon.days + training.every_days) + training.calibration_days + training.test_days
    return (
        f"{len(dates)} as_of dates have mature labels, from {training.first_as_of} every {training.every_days} days, "
        f"which is too little for training, calibration ({training.calibration_days} days) and test "
        f"({training.test_days} days) with {horizon.days} days between them; train at a later --as-of "
        f"({enough} days after first_as_of are always enough), or lower calibration_days and test_days under training"
    )
