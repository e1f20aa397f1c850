"""A flood of equal faults is one line in the log, which says how many there were."""

import logging
import time

import pytest

from serving.sparing import SparingLog


def test_each_kind_is_logged_once_in_an_interval_and_then_with_the_count(caplog: pytest.LogCaptureFixture) -> None:
    log = SparingLog(logging.getLogger("sparing"), seconds=0.2)
    for number in range(5):
        log.tell("Torn", number)
    log.tell("Down", "no answer")
    time.sleep(0.25)
    log.tell("Torn", "again")
    log.tell("Down", "again")
    assert [record.getMessage() for record in caplog.records] == [
        "Torn: 0",
        "Down: no answer",
        "Torn: again (4 more since the last such line)",
        "Down: again",
    ]


def test_a_fault_is_shown_with_where_it_came_from(caplog: pytest.LogCaptureFixture) -> None:
    log = SparingLog(logging.getLogger("sparing"))
    for _ in range(3):
        try:
            int("of one kind")
        except ValueError as fault:
            log.tell("ValueError", "a request failed", "mine", fault)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert (record.exc_info[0], record.__dict__["request_id"]) == (ValueError, "mine")
