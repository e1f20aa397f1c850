"""What needs no Spark, as a process of its own that kills itself at a named step: the clean-up, and a rollback.

`python -m tests.jobs.oncall DEED STEP LAKE REDIS_URL SECONDS`: with a clock that is so many seconds ahead.
"""

import signal
import sys
from datetime import timedelta

import pytest
from deltalake.table import TableOptimizer

from jobs.publication.ledger import LIVE, OVERLAY_DROPPED, REMOVED, VERIFIED, Ledger
from jobs.publication.rollback import Wish, roll_back
from jobs.spec import Settings, load_pipeline
from serving.clock import Clock
from serving.overlay import OverlayStore
from serving.store import Store
from tests.conftest import ROOT
from tests.jobs.halting import Halt, Step, after, before, halting, soon, told
from tests.jobs.sites import NAME, Site

SWEEPING = ("condemned", "unlinked", "removed", "overlay dropped", "drop recorded", "compacting", "compacted")
GOING_BACK = ("verified", "swapped", "recorded")


def halt_at(step: str, now: Step) -> Halt:
    """Return what halts this process at a named step."""
    return {
        "condemned": before(Store, "unlink", now),
        "unlinked": after(Store, "unlink", now),
        "removed": told(REMOVED, now),
        "overlay dropped": after(OverlayStore, "drop_epoch", now),
        "drop recorded": told(OVERLAY_DROPPED, now),
        "compacting": before(TableOptimizer, "compact", soon(now)),
        "compacted": after(TableOptimizer, "compact", now),
        "verified": told(VERIFIED, now),
        "swapped": after(Store, "replace", now),
        "recorded": told(LIVE, now),
    }[step]


def sweep(site: Site) -> None:
    """Clean up behind what is live, keeping two generations."""
    live = site.store.head(NAME)
    assert live is not None
    site.declaring(keep=2).retention.sweep(live, None)


def go_back_to_3(site: Site) -> None:
    """Go back to generation 3."""
    roll_back(site.pipeline, site.store, site.ledger, Wish(to=3))


def go_back(site: Site) -> None:
    """Go back to the generation before."""
    roll_back(site.pipeline, site.store, site.ledger, Wish())


DEEDS = {"sweep": sweep, "go back to 3": go_back_to_3, "go back": go_back}


def main() -> None:
    """Do the deed, up to the step."""
    deed, step, lake, redis_url, seconds = sys.argv[1:]
    settings = Settings(project=ROOT, lake=lake)
    with Store(redis_url) as store, pytest.MonkeyPatch.context() as patch:
        ledger = Ledger.of(settings, NAME, Clock(timedelta(seconds=float(seconds))))
        patch.setattr("jobs.publication.ledger.MANY_FILES", 3)
        halt_at(step, halting(signal.SIGKILL))(patch)
        DEEDS[deed](Site(load_pipeline(settings.pipelines, NAME), store, ledger))


if __name__ == "__main__":
    main()
