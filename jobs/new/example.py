"""The example's files: some customers who order more or less often, the same each time."""

from collections.abc import Iterator
from datetime import date
from random import Random

from jobs.new.outline import Outline

COLUMNS = ("order_id", "ordered_at", "amount", "items")  # beside the entity key
CUSTOMERS = 300
REFUNDED = 0.03  # share of the orders
# Orders of a customer within a horizon: so that within it some order again and others do not, however long it is.
LEAST, MOST = 0.1, 1.6
LIKELIEST = 0.5  # to order on a day


def example(outline: Outline) -> Iterator[tuple[str, str]]:
    """Give each landing file, below the landing folder, with its text: a day's orders and refunds."""
    chance = Random(7)  # noqa: S311  reason: an example, no secret
    likely = [_likely(chance, outline.horizon_days) for _ in range(CUSTOMERS)]
    for day in outline.days:
        rows = [row for number, share in enumerate(likely, 1) for row in _orders(chance, day, number, share)]
        header = f"order_id,{outline.entity_key},ordered_at,amount,items"
        yield f"{outline.source}/{day}.csv", "\n".join([header, *rows]) + "\n"


def _likely(chance: Random, horizon_days: int) -> float:
    """Return how likely a customer is to order on a day: most seldom, few often."""
    return min(LIKELIEST, (LEAST + (MOST - LEAST) * chance.random() ** 2) / horizon_days)


def _orders(chance: Random, day: date, number: int, share: float) -> Iterator[str]:
    if chance.random() >= share:
        return
    key, hour, minute = f"{number:05d}", chance.randrange(8, 20), chance.randrange(60)
    order, amount = f"{day:%Y%m%d}-{key}", f"{chance.randrange(500, 9_000) / 100:.2f}"
    yield f"{order},{key},{day}T{hour:02d}:{minute:02d}:00Z,{amount},{chance.randint(1, 5)}"
    if chance.random() < REFUNDED:
        # A refund is an event of its own, with an id of its own; nothing that was said before is changed.
        yield f"{order}-refund,{key},{day}T{hour + 2:02d}:00:00Z,-{amount},1"
