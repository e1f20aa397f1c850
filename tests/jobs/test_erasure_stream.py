"""A stream and an erased key: neither its state nor what anybody appends again brings the key back."""

from pathlib import Path

from jobs.erasure.erase import Erasure, Place
from jobs.erasure.scope import scope_of
from jobs.spec import load_pipelines
from serving.keys import stream_wish_key
from serving.store import Store
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, by_batch, rows, score_bits, stocked, streamed
from tests.jobs.traces import traces_in_redis
from tests.project import Project

KEY = "00007"


def test_what_the_stream_had_goes_and_events_that_come_again_are_not_scored(
    project: Project, store: Store, jobs_redis_url: str, tmp_path: Path
) -> None:
    declared = stocked(project, jobs_redis_url, tmp_path)
    lake, live = declared.lake, f"scores_live/{NAME}"
    with streamed(declared, store, NOW, Path(declared.settings.lake, "streams", NAME, "query")) as shop:
        shop.happens(rows((KEY, "20.00"), ("00001", "5.00")), NOW - SECOND)
        assert shop.fresh().keys() == {KEY, "00001"}
        before, site = shop.fresh()["00001"], shop.site
    scope = scope_of(declared.pipeline(), load_pipelines(declared.settings.pipelines))
    told = "\n".join(Erasure(Place(lake, declared.settings, store, site.clock), scope, KEY).run())
    assert f"{live}: 1" in told
    assert "begin anew" in told
    assert not Path(declared.settings.lake, "streams", NAME).exists()
    assert not store.ask("EXISTS", stream_wish_key(NAME))
    assert traces_in_redis(store, KEY) == []
    with streamed(declared, store, NOW, tmp_path / "anew") as shop:
        assert shop.fresh() == {"00001": before}
        # Past our code, as a replay would: nothing there knows who was erased.
        shop.happens(rows((KEY, "20.00"), ("00002", "5.00")), NOW - SECOND / 2)
        fresh = shop.fresh()
        assert fresh.keys() == {"00001", "00002"}
        assert score_bits(fresh) == by_batch(shop, fresh)
        assert not lake.read(EVENTS).where(f"customer_id = '{KEY}'").isEmpty()
        assert lake.read(live).where(f"key = '{KEY}'").isEmpty()
        known = [told["stateOperators"][0]["numRowsTotal"] for told in shop.query.recentProgress]
        assert max(known) == lake.read(EVENTS).where(f"customer_id <> '{KEY}'").select("customer_id").distinct().count()
