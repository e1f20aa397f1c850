"""What goes live beside a stream at work: of one model at a time, and nothing fresher is ever undone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from threading import Event, Thread
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs.ingest import ingest
from jobs.publication.ledger import Ledger
from jobs.publication.publish import Warrant, publish
from jobs.publication.rollback import Wish, roll_back
from jobs.score import score
from jobs.stream.checkpoint import current
from jobs.stream.live import LiveEvents
from jobs.stream.site import Site
from serving.clock import microseconds
from serving.head import Head
from serving.store import Store
from tests.jobs.conftest import DAY, FIRST, NEXT
from tests.jobs.populations import at
from tests.jobs.serviced import fresh, has_read, running
from tests.jobs.shop import EVENTS, NAME, NOW, SECOND, bits_of_batch, rows, score_bits, seen, site_of, stocked
from tests.jobs.streamer import await_true
from tests.project import Project, purchases, scored
from tests.registered import register_small

CUSTOMERS = [f"{number:05d}" for number in range(1, 7)]


class Town:
    """A project with its stream at work, and customers who go on buying."""

    def __init__(self, project: Project, site: Site, url: str) -> None:
        self.project, self.site, self.url = project, site, url
        self.bought = 0

    @property
    def head(self) -> Head:
        head = self.site.store.head(NAME)
        assert head is not None
        return head

    @contextmanager
    def buying(self) -> Iterator[None]:
        """Let customers buy while the block lasts, one after another."""
        over, live = Event(), LiveEvents(self.site.settings.table(EVENTS))

        def go_on() -> None:
            for number in count(self.bought):
                live.append(rows((CUSTOMERS[number % len(CUSTOMERS)], f"{1 + number}.00")), NOW + number * SECOND / 10)
                self.bought = number + 1
                if over.wait(0.3):
                    return

        thread = Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def settle(self) -> None:
        """Wait until all who bought have a score by the live model."""
        newest = LiveEvents(self.site.settings.table(EVENTS)).newest()
        await_true(lambda: has_read(self.site, newest))
        await_true(lambda: fresh(self.site).keys() >= set(CUSTOMERS))

    def assert_is_fresh(self) -> None:
        """See that the overlay is of the live model alone, and by the batch's bits."""
        entries = fresh(self.site)
        assert score_bits(entries) == bits_of_batch(self.site, self.head, entries)

    def changed(self, change: Callable[[], object]) -> None:
        """Let something go live while customers buy; see that all end fresh, and that no as_of goes back."""
        before = {key: entry.as_of for key, entry in fresh(self.site).items()}
        with self.buying():
            change()
            self.settle()
        self.settle()
        after = {key: entry.as_of for key, entry in fresh(self.site).items()}
        assert {key: after[key] for key in before if after[key] < before[key]} == {}
        self.assert_is_fresh()

    def score_and_publish(self, day_run: timedelta, warrant: Warrant | None = None) -> str:
        """Score a day by the live model, and publish it, as its run would."""
        model = self.head.model
        run = at(self.project.run(DAY + day_run), minutes=0)
        score(run, model.version, model.digest)
        return publish(run, self.url, *([warrant] if warrant else []))


@pytest.fixture
def town(project: Project, store: Store, jobs_redis_url: str, tmp_path: Path) -> Iterator[Town]:
    declared = stocked(project, jobs_redis_url, tmp_path)
    site = site_of(declared, store, NOW + timedelta(days=2))
    site = replace(site, query_id=current(declared.lake, declared.pipeline()).query_id)
    with running(site) as service:
        town = Town(declared, site, jobs_redis_url)
        with town.buying():
            await_true(lambda: town.bought >= len(CUSTOMERS))
            town.settle()
        town.settle()
        yield town
        assert service.fault is None


def test_whatever_goes_live_beside_it_all_are_of_one_model_and_nobody_s_as_of_goes_back(
    town: Town, tmp_path: Path
) -> None:
    """Another champion, a rollback to the one before, an older day by force: each is an epoch of its own."""
    settings, first = town.site.settings, town.head
    other = register_small(settings.mlflow_uri, tmp_path / "other", seed=2)
    town.changed(lambda: publish(scored(town.project, other, DAY), town.url))
    assert (town.head.model.version, town.head.epoch) == (other.version, first.epoch + 1)
    ledger = Ledger.of(settings, NAME, at(town.project.run(DAY)).clock)
    town.changed(lambda: roll_back(town.site.pipeline, town.site.store, ledger, Wish(reason="it was bad")))
    assert (town.head.model, town.head.epoch) == (first.model, first.epoch + 2)
    town.changed(lambda: town.score_and_publish(FIRST - DAY, Warrant("forced", "the newer one was wrong")))
    assert (town.head.as_of < first.as_of, town.head.epoch) == (True, first.epoch + 3)
    assert models_of_each_append(settings.table(f"scores_live/{NAME}")) == {first.model.version, other.version}


def models_of_each_append(path: str) -> set[str]:
    """Return the models by which rows were scored, if those of each append are by one."""
    found = set()
    for file in DeltaTable(path).file_uris():
        (model,) = set(pq.ParquetFile(unquote(file)).read(["model_version"])["model_version"].to_pylist())
        found.add(model)
    return found


def test_the_days_that_follow_overtake_what_is_older_and_an_old_one_is_history(town: Town) -> None:
    """By the real runs, while customers buy: the overlay ends with what is newer than the last generation alone."""
    first = town.head
    town.changed(lambda: town.score_and_publish(FIRST - DAY))
    assert town.head == first
    older = seen(fresh(town.site))
    town.project.deliver(NEXT, purchases(NEXT, 30))
    with town.buying():
        ingest(town.project.run(NEXT), [NEXT])
        assert town.score_and_publish(NEXT - DAY) == "live"
    assert all(town.head.overtakes(as_of) for as_of, _ in older.values())
    newest = LiveEvents(town.site.settings.table(EVENTS)).append(rows(("00001", "9.00")), NOW + timedelta(days=1))
    await_true(lambda: has_read(town.site, newest))
    for minutes in (2, 4):  # the grace after each is over
        publish(at(town.project.run(NEXT), minutes=minutes), town.url)
    left = fresh(town.site)
    assert {key: entry.as_of for key, entry in left.items()} == {"00001": microseconds(NOW + timedelta(days=1))}
    town.assert_is_fresh()
