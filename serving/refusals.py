"""Why the scores of a date are not live: one short answer a date, beside the head."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from serving.head import Microseconds
from serving.keys import refusals_key
from serving.store import Store

MOST_DATES = 30
Verdict = Literal["history only", "rail breach", "differs", "rolled back"]


@dataclass(frozen=True)
class Refusal:
    """Why scores are not live, by kind and in words; `at` is when that was decided, in microseconds since 1970 UTC."""

    verdict: Verdict
    reason: str
    at: Microseconds


RECORD = TypeAdapter(Refusal)


def parse_refusals(fields: Mapping[bytes, bytes]) -> dict[date, Refusal]:
    """Return refusals by their as_of date, the newest date first; what this version cannot read is left out."""
    found = {}
    for day, record in sorted(fields.items(), reverse=True):
        with suppress(ValidationError, ValueError):
            found[date.fromisoformat(day.decode())] = RECORD.validate_json(record)
    return found


class RefusalStore:
    """The refusals of one pipeline; methods raise `StoreUnavailable` and `StoreRefused`."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self.store = store
        self.name = refusals_key(pipeline)

    def put(self, as_of: date, refusal: Refusal) -> None:
        """Say why the scores as of a date are not live; of all dates the newest thirty stay."""
        self.store.ask("HSET", self.name, as_of.isoformat(), RECORD.dump_json(refusal))
        dates: list[bytes] = self.store.ask("HKEYS", self.name)
        if len(dates) > MOST_DATES:
            self.store.ask("HDEL", self.name, *sorted(dates)[:-MOST_DATES])

    def dates(self) -> set[date]:
        """Return the dates of which something is said."""
        return set(self.read())

    def clear(self, *as_ofs: date) -> None:
        """Forget what was said of dates, which have gone live."""
        if as_ofs:
            self.store.ask("HDEL", self.name, *(as_of.isoformat() for as_of in as_ofs))

    def read(self) -> dict[date, Refusal]:
        """Return the refusals by their as_of date, the newest date first."""
        flat: list[bytes] = self.store.ask("HGETALL", self.name)
        return parse_refusals(dict(zip(flat[::2], flat[1::2], strict=True)))
