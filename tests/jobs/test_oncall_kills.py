"""Clean-ups and rollbacks killed at each step, and run again: the end is that of one clean run."""

import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL

import pytest
from deltalake import DeltaTable

from jobs.errors import RollbackRefused
from jobs.publication.ledger import GRACE, VERIFIED
from jobs.publication.standing import Standing
from serving.head import Head, Overlay
from serving.overlay import Fresh, OverlayStore
from tests.conftest import ROOT
from tests.jobs import oncall
from tests.jobs.oncall import GOING_BACK, SWEEPING
from tests.jobs.sites import NAME, Site

LATER = GRACE.total_seconds() + 1
NOW = 9 * LATER


@pytest.fixture
def live(site: Site) -> Head:
    """Five generations, the last in an epoch of its own, each epoch with an overlay; one more was never finished."""
    head = None
    for token in (1, 2, 3, 4, 5):
        head = site.after(token * LATER).publish(token, overlay=Overlay(2), epoch=1 + token // 5)
        OverlayStore(site.store).write(head, [Fresh("k1", head.as_of + 1, (0.5,))])
    site.reserve(6)
    assert head is not None
    return head


def kill(site: Site, deed: str, step: str) -> None:
    """Let a process do a deed, and kill itself at a step."""
    lake = str(Path(site.ledger.path).parent.parent)
    command = [sys.executable, "-m", "tests.jobs.oncall", deed, step, lake, site.store.url, str(NOW)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-SIGKILL, "")


def whole(site: Site, head: Head) -> bool:
    """Tell whether all blocks of a head's generation are there."""
    return site.store.count_blocks(NAME, head.token, range(head.layout.buckets)) == head.layout.buckets


@pytest.mark.parametrize("step", SWEEPING)
def test_a_clean_up_that_was_killed_is_ended_by_the_next(
    site: Site, live: Head, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(site, "sweep", step)
    assert site.store.head(NAME) == live
    assert whole(site, live)
    monkeypatch.setattr("jobs.publication.ledger.MANY_FILES", 3)
    oncall.sweep(site.after(NOW))
    history = site.ledger.read()
    assert site.there() == [4, 5, 6]
    assert [one.token for one in history.generations if one.removed] == [1, 2, 3]
    assert [(one.token, len(one.turns)) for one in history.generations] == [(n, n < 6) for n in range(1, 7)]
    assert [head.epoch for head in history.dropped] == [1]
    overlays = OverlayStore(site.store)
    assert [len(list(overlays.entries(replace(live, epoch=epoch)))) for epoch in (1, 2)] == [0, 1]
    assert len(DeltaTable(site.ledger.path).file_uris()) <= 3


@pytest.mark.parametrize("step", GOING_BACK)
def test_a_rollback_that_was_killed_ends_where_it_was_to_go(site: Site, live: Head, step: str) -> None:
    kill(site, "go back to 3", step)
    assert whole(site, live)
    with suppress(RollbackRefused):  # it is live already
        oncall.go_back_to_3(site)
    standing = Standing.observed(site.store, site.ledger, NAME)
    assert standing.live is not None
    assert (standing.live.token, standing.live.epoch, standing.lost) == (3, 3, None)
    assert whole(site, standing.live)
    assert [turn.token for turn in standing.history.turns] == [1, 2, 3, 4, 5, 3]
    rows = DeltaTable(site.ledger.path).to_pyarrow_table().to_pylist()
    assert {row["manifest"] for row in rows if row["event"] == VERIFIED} >= {standing.live.to_json().decode()}


@pytest.mark.parametrize("step", GOING_BACK[:-1])
def test_a_rollback_by_one_that_was_killed_before_it_was_on_record_goes_back_by_one(
    site: Site, live: Head, step: str
) -> None:
    kill(site, "go back", step)
    oncall.go_back(site)
    assert [turn.token for turn in site.ledger.read().turns] == [1, 2, 3, 4, 5, 4]
    assert site.store.head(NAME) == site.ledger.read().last
    assert live.token == 5
