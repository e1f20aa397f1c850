"""The operators' commands as they are run: what they print, what they change, and how they end."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from jobs.publication.ledger import BREACH, LIVE, REMOVED, Entry
from serving.clock import Clock
from serving.keys import block_key, head_key
from tests.conftest import ROOT
from tests.jobs.sites import NAME, Site
from tests.project import Project
from tests.serving.publishing import DAY, raw

NOON = datetime(1998, 6, 6, 12, tzinfo=UTC)
Scoreline = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def scoreline(project: Project, site: Site) -> Scoreline:
    """Return what runs a command against the site, at noon of 6 June 1998."""
    variables = {
        "SCORELINE_LAKE": project.settings.lake,
        "SCORELINE_REDIS_URL": site.store.url,
        "SCORELINE_CLOCK": f"{NOON.isoformat()}@{datetime.now(UTC).isoformat()}",
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "jobs", *command],
            env={**os.environ, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def three(site: Site) -> Site:
    """The site at noon, with three generations, a reservation and a refusal."""
    noon = replace(site, ledger=replace(site.ledger, clock=Clock(NOON - datetime.now(UTC))))
    for token in (1, 2, 3):
        noon.publish(token)
    noon.reserve(4)
    noon.ledger.write([(BREACH, Entry(as_of=datetime(1998, 6, 1, tzinfo=UTC), run_id="r", note="500 scores"))])
    return noon


def test_status_says_what_is_live_kept_and_refused(three: Site, scoreline: Scoreline) -> None:
    done = scoreline("status", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "purchase_propensity",
        "  live     generation 3 as of 1998-06-05, 36 h old: 40 scores, epoch 1",
        "           model propensity version 7",
        "           published 1998-06-03 00:00 UTC by run run",
        "  kept     generation 2 as of 1998-06-04, live since 1998-06-06 12:00 UTC",
        "  kept     generation 1 as of 1998-06-03, live since 1998-06-06 12:00 UTC",
        "  refused  1998-06-01: rail breach, 500 scores (1998-06-06 12:00 UTC)",
        "  run      nothing was run yet: `scoreline ingest` comes first",
        "  scored   nothing yet",
        "  stream   never ran: `scoreline stream start purchase_propensity` runs it",
    ]


@pytest.mark.parametrize("lost", ["emptied", "older", "unreadable"])
def test_status_says_what_redis_lost_and_what_to_do(three: Site, scoreline: Scoreline, lost: str) -> None:
    if lost == "emptied":
        raw(three.store).flushdb()
    elif lost == "older":
        newer = replace(three.head(5), as_of=three.head(4).as_of + DAY)
        three.ledger.write([(LIVE, Entry.of(newer))])
    else:
        raw(three.store).set(head_key(NAME), "{}")
    done = scoreline("status")
    token = 5 if lost == "older" else 3
    assert f"  LOST     generation {token} as of " in done.stdout
    assert "`scoreline republish purchase_propensity` brings it back" in done.stdout
    assert "  refused  1998-06-01: rail breach, 500 scores (1998-06-06 12:00 UTC)" in done.stdout
    assert ("  live     generation 3" in done.stdout) == (lost == "older")
    assert ("  UNREADABLE a head record this version cannot read" in done.stdout) == (lost == "unreadable")


def test_generations_are_listed_with_what_is_left_of_them(three: Site, scoreline: Scoreline) -> None:
    raw(three.store).delete(block_key(NAME, 2, 0))
    three.ledger.write([(REMOVED, Entry.of(three.head(1)))])
    done = scoreline("generations", NAME, "--last", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "generation  as of       scores  model         epoch  went live             is",
        "4           1998-06-06  40                           never",
        "3           1998-06-05  40      propensity 7  1      1998-06-06 12:00 UTC  live",
        "2           1998-06-04  40      propensity 7  1      1998-06-06 12:00 UTC  present, 1 of 10 blocks missing",
        "1           1998-06-03  40      propensity 7  1      1998-06-06 12:00 UTC  removed",
    ]
    assert len(scoreline("generations", NAME, "--last", "2").stdout.splitlines()) == 3


def test_what_redis_has_no_more_is_not_called_kept(three: Site, scoreline: Scoreline) -> None:
    """The ledger alone does not know that Redis was emptied."""
    raw(three.store).flushdb()
    assert "kept" not in scoreline("status", NAME).stdout
    assert [line.split()[-1] for line in scoreline("generations", NAME).stdout.splitlines()[2:]] == ["lost"] * 3
    raw(three.store).set(block_key(NAME, 2, 0), b"")
    kept = [line for line in scoreline("status", NAME).stdout.splitlines() if "kept" in line]
    assert kept == ["  kept     generation 2 as of 1998-06-04, live since 1998-06-06 12:00 UTC, 9 of 10 blocks missing"]


def test_a_rollback_is_one_command_and_well_ended_each_time(three: Site, scoreline: Scoreline) -> None:
    done = scoreline("rollback", NAME, "--reason", "calls from shops")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "purchase_propensity: generation 2 as of 1998-06-04 is live again, epoch 2\n"
    refused = scoreline("rollback", NAME, "--to", "4")
    assert refused.returncode == 3
    assert "generation 2 is live, and there is no going back to generation 4" in refused.stderr
    assert [scoreline("rollback", NAME, "--to", to).returncode for to in ("2", "1", "2")] == [3, 0, 0]
    live = three.store.head(NAME)
    assert live is not None
    assert (live.token, live.epoch) == (2, 4)
    assert "rolled back, rollback from generation 3: calls from shops" in scoreline("status", NAME).stdout


def test_what_cannot_be_done_without_a_generation_is_said(site: Site, scoreline: Scoreline) -> None:
    for command, words in (("verify", "nothing is live to verify"), ("republish", "nothing ever went live")):
        done = scoreline(command, NAME)
        assert done.returncode == 3
        assert words in done.stderr
    assert scoreline("status").stdout.startswith(
        "purchase_propensity\n  live     nothing\n  run      nothing was run yet"
    )
    assert scoreline("generations", NAME).stdout == "generation  as of  scores  model  epoch  went live  is\n"


def test_what_is_live_is_not_republished(three: Site, scoreline: Scoreline) -> None:
    before = three.store.record(NAME)
    done = scoreline("republish", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert "what went live last is live; nothing to do" in done.stdout
    assert three.store.record(NAME) == before
