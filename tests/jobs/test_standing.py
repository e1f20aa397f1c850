"""Epochs and overlays: which go on, which begin anew, and what is lost."""

from dataclasses import replace

import pytest

from jobs.publication.ledger import LIVE, Entry
from jobs.publication.standing import Standing
from jobs.spec import Pipeline, load_pipeline
from jobs.spec.stream import Stream
from serving.head import Head, Model, Overlay
from serving.keys import head_key
from tests.conftest import ROOT
from tests.jobs.sites import NAME, Site
from tests.serving.publishing import DAY, raw

OTHER = Model("purchase_propensity", "8", "sha256:8")


Spot = tuple[int, Overlay | None]
DECLARED = load_pipeline(ROOT / "dags" / "pipelines", NAME)
WITHOUT = DECLARED.model_copy(update={"stream": None})
WITH = DECLARED.model_copy(update={"stream": Stream.model_validate({})})


def placed(site: Site, head: Head, declared: Pipeline = WITHOUT) -> Spot:
    found = Standing.observed(site.store, site.ledger, NAME).placed(head, declared)
    return found.epoch, found.overlay


def apart(site: Site, head: Head) -> Spot:
    found = Standing.observed(site.store, site.ledger, NAME).apart(head, WITH)
    return found.epoch, found.overlay


def test_the_first_epoch_is_one(site: Site) -> None:
    head = site.head(1)
    assert placed(site, head) == (1, None)
    assert apart(site, head) == (1, Overlay(head.layout.buckets))


def test_an_epoch_goes_on_in_order_with_the_same_model_and_keeps_its_overlay(site: Site) -> None:
    live = site.publish(2, overlay=Overlay(77), epoch=4)
    newer, restated, older = (replace(live, token=3, as_of=live.as_of + days * DAY) for days in (1, 0, -1))
    own = Overlay(live.layout.buckets)
    assert placed(site, newer, WITH) == (4, Overlay(77))
    assert placed(site, restated, WITH) == (4, Overlay(77))
    assert placed(site, older, WITH) == (5, own)
    assert placed(site, replace(newer, model=OTHER), WITH) == (5, own)
    assert apart(site, newer) == (5, own)
    assert placed(site, newer) == (5, None)


@pytest.mark.parametrize("emptied", [True, False])
def test_what_redis_lost_still_counts(site: Site, *, emptied: bool) -> None:
    """Else its epoch would be used again, for another order of events."""
    live = site.publish(1)
    lost = replace(live, token=2, epoch=3, as_of=live.as_of + DAY)
    site.ledger.write([(LIVE, Entry.of(lost))])
    if emptied:
        raw(site.store).delete(head_key(NAME))
    standing = Standing.observed(site.store, site.ledger, NAME)
    assert (standing.lost, standing.live) == (lost, None if emptied else live)
    assert standing.placed(replace(lost, token=3), WITHOUT).epoch == 3
    assert standing.placed(replace(live, token=3), WITHOUT).epoch == 4


def test_nothing_is_lost_while_the_newest_is_live(site: Site) -> None:
    assert Standing.observed(site.store, site.ledger, NAME).lost is None
    live = site.publish(1)
    assert Standing.observed(site.store, site.ledger, NAME).lost is None
    newer = replace(live, token=2)
    assert site.store.replace(site.store.record(NAME), newer) == "live"
    assert Standing.observed(site.store, site.ledger, NAME).lost is None


def test_a_head_that_no_version_can_read_is_lost_too(site: Site) -> None:
    live = site.publish(1)
    raw(site.store).set(head_key(NAME), "no record")
    standing = Standing.observed(site.store, site.ledger, NAME)
    assert (standing.record, standing.live, standing.lost) == (b"no record", None, live)
