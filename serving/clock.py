"""The clock that "now" comes from: the real one, or one set to another time that runs on from there."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from time import time_ns

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(instant: datetime) -> int:
    """Return an aware instant as microseconds since 1970 UTC, as head records hold it."""
    return (instant - EPOCH) // timedelta(microseconds=1)


def instant(since_1970: int) -> datetime:
    """Return the UTC instant of microseconds since 1970; the inverse of `microseconds`."""
    return EPOCH + timedelta(microseconds=since_1970)


@dataclass(frozen=True)
class Clock:
    """The real clock, shifted by `offset`."""

    offset: timedelta = timedelta()

    @classmethod
    def parse(cls, text: str) -> "Clock":
        """Return the clock of "real", or of "T@R": at the real instant R it shows T, then runs on.

        Both are ISO 8601 instants with their offset from UTC; anything else is a `ValueError`.
        """
        if text == "real":
            return cls()
        try:
            shown, at = (_parsed(part) for part in text.split("@"))
        except ValueError as fault:
            raise ValueError(
                f"{text!r} is no clock ({fault}); write real, or two instants such as "
                "1998-06-04T06:00:00Z@2026-01-01T00:00:00Z"
            ) from fault
        return cls(shown - at)

    def now(self) -> datetime:
        """Return the time now, in UTC."""
        return datetime.now(UTC) + self.offset

    def microseconds(self) -> int:
        """Return the time now in microseconds since 1970 UTC, as head records hold times."""
        return time_ns() // 1000 + self._shift

    @cached_property
    def _shift(self) -> int:
        return self.offset // timedelta(microseconds=1)


def _parsed(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    if parsed.tzinfo is None:
        raise ValueError(f"{text} lacks its offset from UTC, such as Z")
    return parsed
