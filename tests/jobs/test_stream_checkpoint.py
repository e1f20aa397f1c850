"""What a stream goes on from: the same checkpoint each time, and none that was made of other events."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import CheckpointDamaged, StreamChanged
from jobs.lake import Lake
from jobs.spec import Pipeline
from jobs.stream.checkpoint import current, forget
from jobs.stream.topic import begin_again, place
from jobs.tables import events_table
from tests.jobs.populations import streaming
from tests.project import Project


@pytest.fixture
def declared(project: Project) -> Project:
    declared = streaming(project)
    declared.lake.create(events_table(*declared.pipeline().events))
    return declared


def altered(declared: Project, old: str, new: str) -> Pipeline:
    """Return the pipeline after its YAML was changed."""
    path = declared.settings.pipelines / "purchase_propensity.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return declared.pipeline()


def test_it_is_the_same_each_time_whatever_is_said_of_segment_and_pace(declared: Project) -> None:
    first = current(declared.lake, declared.pipeline())
    assert first.folder == f"streams/purchase_propensity/{first.query_id}"
    assert current(declared.lake, declared.pipeline()) == first
    other = altered(declared, "stream: {}", "stream: {segment: spent_total > 5, every_ms: 500, longest_history: 9}")
    assert current(declared.lake, other) == first


@pytest.mark.parametrize("new", ["cds: bigint\n", "cds: int\n      colour: string\n"])
def test_state_of_other_events_is_refused_with_the_remedy(declared: Project, new: str) -> None:
    current(declared.lake, declared.pipeline())
    pipeline = altered(declared, "cds: int\n", new)
    with pytest.raises(StreamChanged, match=r"made for other columns \(.*`scoreline stream start .* --rebuild`"):
        current(declared.lake, pipeline)


def test_state_by_another_key_is_refused(declared: Project) -> None:
    current(declared.lake, declared.pipeline())
    pipeline = declared.pipeline().model_copy(update={"entity_key": "cds"})
    with pytest.raises(StreamChanged, match=r"made for other entity key \({'entity key': 'customer_id'}, now "):
        current(declared.lake, pipeline)


def test_a_table_of_events_that_was_made_anew_is_another_one(declared: Project) -> None:
    pipeline = declared.pipeline()
    current(declared.lake, pipeline)
    shutil.rmtree(declared.lake.path("events/transactions"))
    declared.lake.create(events_table(*pipeline.events))
    with pytest.raises(StreamChanged, match="made for other table"):
        current(declared.lake, pipeline)


def test_what_is_forgotten_begins_anew_and_leaves_nothing(declared: Project) -> None:
    lake, pipeline = declared.lake, declared.pipeline()
    first = current(lake, pipeline)
    state = Path(lake.path(first.folder)) / "offsets"
    state.mkdir(parents=True)
    forget(lake, pipeline)
    assert not state.exists()
    assert current(lake, altered(declared, "    cds: int\n", "    cds: bigint\n")) != first


def test_two_streams_have_nothing_in_common(declared: Project) -> None:
    lake, pipeline = declared.lake, declared.pipeline()
    other = pipeline.model_copy(update={"name": "other"})
    first, second = current(lake, pipeline), current(Lake(lake.spark, lake.root), other)
    assert first.query_id != second.query_id
    forget(lake, other)
    assert current(lake, pipeline) == replace(first)


@pytest.mark.parametrize("left", ["", '{"query_id": "7', "[]", '{"query_id": "7"}'])
def test_a_record_that_was_cut_off_is_refused_with_the_remedy(declared: Project, left: str) -> None:
    lake, pipeline = declared.lake, declared.pipeline()
    current(lake, pipeline)
    lake.files.write_line("streams/purchase_propensity/checkpoint.json", left)
    with pytest.raises(CheckpointDamaged, match=r"checkpoint.json is no record .* --rebuild` begins anew"):
        current(lake, pipeline)
    forget(lake, pipeline)
    current(lake, pipeline)


def test_a_place_that_was_cut_off_is_refused_and_read_again(project: Project) -> None:
    """Else a topic that begins with its latest message would lose what came since."""
    declared = streaming(project, "stream: {kafka: {topic: t, starting: latest}}")
    lake, pipeline = declared.lake, declared.pipeline()
    lake.create(events_table(*pipeline.events))
    lake.files.write_line("topics/purchase_propensity/t/place.json", '{"id": "7')
    with pytest.raises(CheckpointDamaged, match=r"place.json is no record .* --reread` reads it again"):
        place(lake, pipeline)
    begin_again(lake, pipeline)
    assert place(lake, pipeline).starting == "earliest"


def test_whoever_reads_a_record_meanwhile_sees_all_of_one(project: Project) -> None:
    """Also where a file with a checksum beside it is replaced; and nothing is left beside it."""
    files, folder = project.lake.files, Path(project.lake.path("records"))
    folder.mkdir(parents=True)
    record = folder / "a.json"
    record.write_text("x" * 100_000 + "\n")
    (folder / ".a.json.crc").write_bytes(b"of another")
    with record.open() as reader:
        files.write_line("records/a.json", "new")
        assert reader.readline() == "x" * 100_000 + "\n", "it was replaced, and not written over"
    assert files.first_line(project.lake.path("records/a.json"), 100) == "new"
    assert {path.name for path in folder.iterdir()} <= {"a.json", ".a.json.crc"}
