"""Kafka as the source of live events: a real broker, and what its messages become."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from pyspark.sql import SparkSession

from jobs.errors import MessagesLost, StreamChanged
from jobs.features import counted_once
from jobs.ingest import ingest
from jobs.publication.publish import publish
from jobs.stream.checkpoint import current, forget
from jobs.stream.live import LiveEvents
from jobs.stream.loader import Loader
from jobs.stream.service import Service
from jobs.stream.topic import begin_again, place
from jobs.tables import events_table
from serving.keys import stream_key
from serving.overlay import OverlayStore
from serving.store import Store
from serving.stream import StreamRecord, parse_stream
from tests.jobs.broker import Broker, running
from tests.jobs.conftest import DAY
from tests.jobs.inlets import EVENTS, NOW, TOPICS, Inlet, await_until, bought, opened, tend_until
from tests.jobs.populations import NAME
from tests.project import Project, purchases, scored
from tests.registered import register_small


@pytest.fixture(scope="session")
def broker(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running(spark, tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def inlet(project: Project, broker: Broker) -> Iterator[Inlet]:
    """A topic of its own and a loader that runs, on an empty table of events."""
    topic = broker.made(next(TOPICS))
    found = opened(project, broker, topic)
    found.loader.start()
    yield found
    found.loader.stop()


def test_a_message_becomes_an_event_typed_as_a_file_s_row(inlet: Inlet) -> None:
    inlet.send(bought(), bought("00007", 20, "1998-06-01", "2", shop="unknown to us"))
    inlet.settle()
    first, second = inlet.events()
    assert (first.customer_id, str(first.amount), first.cds) == ("00042", "12.50", 1)
    assert (second.customer_id, str(second.amount), second.cds) == ("00007", "20.00", 2)
    assert second.event_time.replace(tzinfo=UTC) == datetime(1998, 6, 1, tzinfo=UTC)
    assert first.source_file == f"kafka:{inlet.topic}/0/0"
    assert first.event_id.startswith(f"{inlet.topic}/0/0/")
    assert NOW <= first.arrived_at.replace(tzinfo=UTC) < NOW + timedelta(minutes=10)
    assert (inlet.loader.loaded, inlet.loader.rejected) == (2, 0)


FAULTS = {
    "no JSON": ("it is not one JSON object", "spoiled"),
    "two in one": ("it is not one JSON object", bought() + bought()),
    "two in a row": ("it is not one JSON object", f"{bought()},{bought()}"),
    "a list": ("it is not one JSON object", f"[{bought()}]"),
    "nothing": ("it is not one JSON object", None),
    "no UTF-8": ("it is not UTF-8", bought().encode().replace(b"00042", b"000\xff2")),
    "a field missing": ("amount: it is missing", '{"customer_id": "00042", "purchase_date": "1998-06-02", "cds": 1}'),
    "a number for a key": ("customer_id: 42 is not in quotes", bought(42)),
    "an object for a key": ('customer_id: {"of":"shop"} is not in quotes', bought({"of": "shop"})),
    "no key": ("customer_id: it is empty", bought(None)),
    "no date": ("purchase_date: '1998-02-30' is not date", bought(day="1998-02-30")),
    "seconds for a date": ("purchase_date: '896745600' is not date", bought(day=896745600)),
    "another type": ("cds: 'many' is not int", bought(cds="many")),
    "too exact": ("amount: '12.505' is not decimal(10,2)", bought(amount=12.505)),
    "far ahead": ("purchase_date: it is after the delivery", bought(day="1998-06-05")),
    "a rule of the suite": ("amount=-1.00 breaks expect_column_values_to_be_between", bought(amount=-1)),
}


def test_what_is_at_fault_is_quarantined_with_its_reason_and_holds_up_nothing(inlet: Inlet) -> None:
    inlet.send(*(message for _, message in FAULTS.values()), bought(amount="1.00"))
    inlet.settle()
    assert inlet.amounts() == ["1.00"]
    assert inlet.loader.rejected == len(FAULTS)
    rejected = {int(row.source_file.split("/")[-1]): row for row in inlet.rejected()}
    for number, (name, (reason, message)) in enumerate(FAULTS.items()):
        row = rejected[number]
        assert any(reason in said for said in row.reasons), (name, row.reasons)
        assert row.raw == (message.decode("utf-8", "replace") if isinstance(message, bytes) else message), name
        assert (row.day, row.run_id) == (NOW.date(), inlet.loader.place.id)


def test_a_batch_that_spark_gives_again_is_appended_once(inlet: Inlet) -> None:
    """As after a kill between the append and Spark's own note of it."""
    inlet.send(bought(amount="1.00"), "spoiled")
    inlet.settle()
    inlet.loader.stop()
    folder = Path(inlet.site.lake.path(inlet.loader.place.folder))
    last = max((folder / "commits").glob("[0-9]*"), key=lambda commit: int(commit.name))
    for path in (last, last.with_name(f".{last.name}.crc")):
        path.unlink()
    again = inlet.started_again()
    again.send(bought(amount="2.00"))
    again.settle()
    again.loader.stop()
    assert again.amounts() == ["1.00", "2.00"]
    assert len(again.rejected()) == 1
    assert (again.loader.loaded, again.loader.rejected) == (1, 0)


def test_a_load_that_was_cut_off_half_way_is_brought_to_its_end(inlet: Inlet, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is at fault was quarantined, the events not yet; the query starts again by itself."""
    append_once, cuts = LiveEvents.append_once, [RuntimeError("cut off")]

    def cut(*given: Any) -> bool:
        if cuts:
            raise cuts.pop()
        return append_once(*given)

    monkeypatch.setattr(LiveEvents, "append_once", cut)
    inlet.send(bought(amount="1.00"), "spoiled")
    tend_until(inlet.loader, lambda: inlet.loader.loaded == 1)
    assert not inlet.loader.waits_for
    assert inlet.amounts() == ["1.00"]
    assert len(inlet.rejected()) == 1


def test_each_append_has_its_number_and_no_more_than_the_declared_messages(project: Project, broker: Broker) -> None:
    topic = broker.made(next(TOPICS), partitions=2)
    broker.send(topic, *(bought(amount=f"{number}.00") for number in range(1, 6)))
    inlet = opened(project, broker, topic, ", max_per_batch: 2")
    inlet.loader.start()
    inlet.settle()
    inlet.loader.stop()
    assert inlet.amounts() == ["1.00", "2.00", "3.00", "4.00", "5.00"]
    appends = [row.table_version for row in inlet.events()]
    assert sorted(set(appends)) == [0, 1, 2]
    assert max(appends.count(version) for version in set(appends)) == 2
    assert inlet.site.lake.appended(EVENTS) == 2


def test_a_topic_that_is_to_begin_with_what_comes_does_so(project: Project, broker: Broker) -> None:
    topic = broker.made(next(TOPICS))
    broker.send(topic, bought(amount="1.00"))
    inlet = opened(project, broker, topic, ", starting: latest")
    inlet.loader.start()
    inlet.settle()
    inlet.send(bought(amount="2.00"))
    inlet.settle()
    inlet.loader.stop()
    assert inlet.amounts() == ["2.00"]


def test_a_broker_that_is_down_is_waited_for(inlet: Inlet) -> None:
    inlet.send(bought(amount="1.00"))
    inlet.settle()
    inlet.broker.stop()
    try:
        tend_until(inlet.loader, lambda: bool(inlet.loader.waits_for))
        assert "imeout" in inlet.loader.waits_for
        assert inlet.loader.told(StreamRecord(state="running", query_id="", started_at=0, told_at=0)).waits_for
    finally:
        inlet.broker.start()
    tend_until(inlet.loader, lambda: not inlet.loader.waits_for)
    inlet.send(bought(amount="2.00"))
    tend_until(inlet.loader, lambda: inlet.loader.loaded == 2)
    assert inlet.amounts() == ["1.00", "2.00"]


def test_lost_messages_are_told_with_the_remedy_and_the_rest_counts_once(inlet: Inlet) -> None:
    inlet.send(bought(amount="1.00"))
    inlet.settle()
    inlet.loader.stop()
    inlet.send(bought(amount="2.00"), bought(amount="3.00"))
    inlet.broker.remove_messages(inlet.topic, before=2)
    lossy = inlet.started_again()
    with pytest.raises(MessagesLost, match=rf"\[1, 3\).*stream start {NAME} --reread"):
        tend_until(lossy.loader, lambda: False)
    assert lossy.amounts() == ["1.00"]

    for _ in range(2):  # what is read twice counts once
        begin_again(inlet.site.lake, inlet.site.pipeline)
        again = inlet.started_again()
        again.settle()
        again.loader.stop()
    assert again.amounts() == ["1.00", "3.00", "3.00"]
    counted = counted_once(again.site.lake.read(EVENTS), again.site.pipeline.entity_key)
    assert sorted(str(row.amount) for row in counted.collect()) == ["1.00", "3.00"]


def test_a_topic_that_was_made_anew_is_told_and_read_from_its_begin(inlet: Inlet) -> None:
    """Its messages have the offsets of others that were read: they are events of their own all the same."""
    inlet.send(bought(amount="1.00"), bought(amount="2.00"))
    inlet.settle()
    inlet.broker.remove(inlet.topic)
    inlet.broker.made(inlet.topic)
    inlet.send(bought(amount="3.00"))
    with pytest.raises(MessagesLost, match=r"from 2 to 1.*--reread"):
        tend_until(inlet.loader, lambda: False)
    begin_again(inlet.site.lake, inlet.site.pipeline)
    again = inlet.started_again()
    again.settle()
    again.loader.stop()
    counted = counted_once(again.site.lake.read(EVENTS), again.site.pipeline.entity_key)
    assert sorted(str(row.amount) for row in counted.collect()) == ["1.00", "2.00", "3.00"]


def test_each_topic_has_its_own_place(inlet: Inlet) -> None:
    lake, pipeline = inlet.site.lake, inlet.site.pipeline
    first = place(lake, pipeline)
    assert first == inlet.loader.place
    assert pipeline.stream
    assert pipeline.topic
    kafka = pipeline.topic.model_copy(update={"topic": "another"})
    other = pipeline.model_copy(update={"stream": pipeline.stream.model_copy(update={"kafka": kafka})})
    assert place(lake, other).folder != first.folder
    forget(lake, pipeline)
    assert place(lake, pipeline) == first


def test_a_table_that_was_made_anew_wants_its_topic_again(inlet: Inlet) -> None:
    inlet.loader.stop()
    inlet.site.lake.files.delete(EVENTS)
    inlet.site.lake.create(events_table(*inlet.site.pipeline.events))
    with pytest.raises(StreamChanged, match="--reread"):
        place(inlet.site.lake, inlet.site.pipeline)
    begin_again(inlet.site.lake, inlet.site.pipeline)
    assert place(inlet.site.lake, inlet.site.pipeline).starting == "earliest"


def test_options_of_the_settings_reach_kafka(inlet: Inlet) -> None:
    """The listener speaks to nobody without the password that is among the options."""
    asked = inlet.started_again(**inlet.broker.asking_settings)
    asked.send(bought(amount="1.00"))
    asked.settle()
    asked.loader.stop()
    assert asked.amounts() == ["1.00"]
    assert "of tests" not in repr(asked.site.settings)


def test_an_event_keeps_the_id_and_the_arrival_that_upstream_gives(project: Project, broker: Broker) -> None:
    """Seen live, and again in the file of its day, it counts once."""
    topic, project = broker.made(next(TOPICS)), project.copied(project.folder)
    yaml = project.settings.pipelines / f"{NAME}.yaml"
    own = "      order_no: string\n      sent: timestamp\n    event_id: order_no\n    arrived_at: sent\n    event_time"
    yaml.write_text(yaml.read_text().replace("    event_time", own, 1))
    inlet = opened(project, broker, topic)
    inlet.loader.start()
    inlet.send(bought(order_no="a1", sent="1998-06-02T08:30:00Z"), bought(order_no="a2"))
    inlet.settle()
    inlet.loader.stop()
    (event,) = inlet.events()
    assert (event.event_id, event.arrived_at) == ("a1", datetime(1998, 6, 2, 8, 30))  # noqa: DTZ001  reason: as Spark gives UTC
    (rejected,) = inlet.rejected()
    assert "sent: it is missing" in rejected.reasons[0]

    day = NOW.date()
    row = "00042,1998-06-02,1,12.50,a1,1998-06-02T08:30:00Z"
    inlet.project.deliver(day, [row], header="customer_id,purchase_date,cds,amount,order_no,sent")
    ingest(inlet.project.run(day), [day])
    assert len(inlet.events()) == 2
    counted = counted_once(inlet.site.lake.read(EVENTS), inlet.site.pipeline.entity_key)
    assert counted.count() == 1


def test_a_message_shows_in_the_overlay_by_the_running_stream(
    project: Project, broker: Broker, store: Store, jobs_redis_url: str
) -> None:
    """From the topic to the score that an app reads, and to the record that it reads how the stream is."""
    topic = broker.made(next(TOPICS))
    inlet = opened(project, broker, topic)
    declared = inlet.project
    declared.deliver(DAY, purchases(DAY, 30))
    ingest(declared.run(DAY), [DAY])
    model = register_small(declared.settings.mlflow_uri, declared.folder / "report")
    assert publish(scored(declared, model, DAY), jobs_redis_url) == "live"
    site, stopping = replace(inlet.site, store=store), Event()
    service = Service(site, stopping, Loader(site, inlet.loader.place, stopping))
    with ThreadPoolExecutor(1) as beside:
        ran = beside.submit(service.run, current(site.lake, site.pipeline))
        try:
            broker.send(topic, bought("99999"), bought("00001"), "spoiled")
            head = store.head(NAME)
            assert head
            await_until(
                lambda: ran.done() or {each.key for each in OverlayStore(store).entries(head)} == {"00001", "99999"}
            )
        finally:
            stopping.set()
        ran.result()
    assert len(inlet.rejected()) == 1
    record = parse_stream(cast("bytes", store.ask("GET", stream_key(NAME))))
    assert (record.state, record.loaded, record.rejected) == ("stopped", 2, 1)
