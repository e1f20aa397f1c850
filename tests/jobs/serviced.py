"""The long-running job of a stream in a thread of the tests, and what it says and writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from jobs.stream.checkpoint import current
from jobs.stream.service import Service
from jobs.stream.site import Site
from serving.keys import stream_key
from serving.overlay import Fresh, OverlayStore
from serving.stream import StreamRecord, parse_stream
from tests.jobs.shop import NAME


@dataclass
class Running:
    """A service at work in a thread, until it is to stop; `fault` is what it ended with."""

    site: Site
    stopping: Event = field(default_factory=Event)
    fault: BaseException | None = None

    def __post_init__(self) -> None:
        self.service = Service(self.site, self.stopping)
        self.thread = Thread(target=self._work)
        self.thread.start()

    def _work(self) -> None:
        try:
            self.service.run(current(self.site.lake, self.site.pipeline))
        except BaseException as fault:  # noqa: BLE001  reason: the test looks at it
            self.fault = fault

    def join(self) -> None:
        self.thread.join(240)
        assert not self.thread.is_alive()


@contextmanager
def running(site: Site) -> Iterator[Running]:
    service = Running(site)
    try:
        yield service
    finally:
        service.stopping.set()
        service.join()


def record(site: Site) -> StreamRecord:
    raw = site.store.ask("GET", stream_key(NAME))
    assert isinstance(raw, bytes)
    return parse_stream(raw)


def has_read(site: Site, version: int) -> bool:
    """Return whether the stream says that it has read the events up to a version, at least."""
    return site.store.ask("EXISTS", stream_key(NAME)) == 1 and record(site).version >= version


def fresh(site: Site) -> dict[str, Fresh]:
    head = site.store.head(NAME)
    assert head is not None
    return {each.key: each for each in OverlayStore(site.store).entries(head)}
