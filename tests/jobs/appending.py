"""Somebody else who appends live events: light to import, for it is a process of its own."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa

from jobs.stream.live import LiveEvents

APPENDED = 6
NOON = datetime(1998, 6, 2, 12, tzinfo=UTC)


def bought(writer: int, number: int) -> pa.Table:
    """Return a purchase, the `number`-th of a writer."""
    return pa.table(
        {
            "event_id": [f"{writer}-{number}"],
            "event_time": pa.array([NOON - timedelta(hours=12)], pa.timestamp("us", "UTC")),
            "customer_id": [f"{writer:05d}"],
            "purchase_date": [date(1998, 6, 2)],
            "cds": pa.array([1], pa.int32()),
            "amount": pa.array([Decimal("1.00")], pa.decimal128(10, 2)),
        }
    )


def append(path: str, writer: int) -> list[int]:
    """Append a few times, and return the numbers."""
    live = LiveEvents(path)
    return [live.append(bought(writer, number), NOON + timedelta(seconds=number)) for number in range(APPENDED)]
