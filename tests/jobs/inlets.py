"""Topics with loaders of their own: what the tests of live events from Kafka share."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from threading import Event
from typing import Any

from pyspark.sql import Row

from jobs.stream.loader import Loader
from jobs.stream.site import Site
from jobs.stream.topic import place
from jobs.tables import events_table
from serving.clock import Clock
from tests.jobs.broker import Broker
from tests.jobs.populations import streaming
from tests.project import Project

EVENTS, REJECTED = "events/transactions", "quarantine/transactions"
NOW = datetime(1998, 6, 2, 9, tzinfo=UTC)
TOPICS = (f"sales.{number}" for number in count())


@dataclass
class Inlet:
    """A topic, and the loader of a pipeline that declares it."""

    project: Project
    broker: Broker
    site: Site
    topic: str
    loader: Loader

    def send(self, *values: str | bytes | None) -> None:
        self.broker.send(self.topic, *values)

    def settle(self) -> None:
        """Wait until what was sent is loaded."""
        assert self.loader.query is not None
        self.loader.query.processAllAvailable()

    def started_again(self, **settings: Any) -> "Inlet":
        """Return the inlet as of another process, with other settings."""
        self.loader.stop()
        changed = self.site.settings.model_copy(update=settings)
        site = replace(self.site, settings=changed)
        loader = Loader(site, place(site.lake, site.pipeline), Event())
        loader.start()
        return replace(self, site=site, loader=loader)

    def events(self) -> list[Row]:
        return self.project.lake.read(EVENTS).orderBy("table_version", "source_file").collect()

    def amounts(self) -> list[str]:
        return sorted(str(row.amount) for row in self.events())

    def rejected(self) -> list[Row]:
        return self.project.lake.read(REJECTED).orderBy("source_file").collect()


def opened(project: Project, broker: Broker, topic: str, said: str = "") -> Inlet:
    declared = streaming(project, f"stream: {{every_ms: 1, kafka: {{topic: {topic}{said}}}}}")
    pipeline = declared.pipeline()
    declared.lake.create(events_table(*pipeline.events))
    clock = Clock(NOW - datetime.now(UTC))
    settings = declared.settings.model_copy(update=broker.settings)
    store: Any = None
    site = Site(pipeline, declared.lake, settings, clock, store, "query")
    return Inlet(declared, broker, site, topic, Loader(site, place(declared.lake, pipeline), Event()))


def bought(customer: Any = "00042", amount: Any = "12.50", day: Any = "1998-06-02", cds: Any = 1, **more: Any) -> str:
    return json.dumps({"customer_id": customer, "purchase_date": day, "cds": cds, "amount": amount, **more})


def tend_until(loader: Loader, reached: Callable[[], bool]) -> None:
    """Look after a loader, as the service does, until a state is reached."""

    def looked() -> bool:
        loader.tend()
        return reached()

    await_until(looked)


def await_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert time.monotonic() < deadline, "not reached in 120 s"
        time.sleep(0.1)
