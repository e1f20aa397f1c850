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
