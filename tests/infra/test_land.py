"""The demo's data, laid out as an upstream system would deliver them."""

from datetime import date
from pathlib import Path

from infra.demo.land import FIRST_DAY, HEADER, LAST_DAY, by_day, land


def test_every_purchase_lands_once_and_every_day_has_a_file(tmp_path: Path) -> None:
    landed = land(tmp_path, FIRST_DAY, LAST_DAY)

    files = sorted(tmp_path.rglob("*"))
    names = [path for path in files if path.is_file()]
    lines = [line for path in names for line in path.read_text().splitlines()]
    assert (landed.days, landed.purchases, landed.new) == (546, 69_659, 546)
    assert {path.name for path in names} == {"transactions.csv"}
    assert lines.count(HEADER) == 546
    assert len(lines) - 546 == 69_659


def test_customer_ids_keep_their_zeros_and_dates_are_iso(tmp_path: Path) -> None:
    land(tmp_path, FIRST_DAY, FIRST_DAY)

    lines = (tmp_path / "transactions/date=1997-01-01/transactions.csv").read_text().splitlines()
    assert lines[:2] == [HEADER, "00001,1997-01-01,1,11.77"]


def test_a_day_without_purchases_gets_a_header(tmp_path: Path) -> None:
    day = date(1998, 7, 1)

    landed = land(tmp_path, day, day)

    assert day not in by_day()
    assert landed.purchases == 0
    assert (tmp_path / "transactions/date=1998-07-01/transactions.csv").read_text() == HEADER + "\n"


def test_landing_again_leaves_what_is_there_and_mends_what_is_not(tmp_path: Path) -> None:
    first, last = date(1998, 6, 1), date(1998, 6, 3)
    land(tmp_path, first, last)
    spoiled = tmp_path / "transactions/date=1998-06-02/transactions.csv"
    good = spoiled.read_bytes()
    spoiled.write_bytes(good[:100])

    landed = land(tmp_path, first, last)

    assert landed.new == 1
    assert spoiled.read_bytes() == good
