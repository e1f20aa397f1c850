"""Which checkpoint a stream goes on from, and what it cannot follow."""

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from jobs.errors import CheckpointDamaged, StreamChanged
from jobs.lake import Lake
from jobs.spec import Pipeline

LONGEST = 2**20  # bytes of the record
FORMAT = 1  # of the state: another one cannot be read


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of a pipeline's stream: its id, which names its folder below the lake."""

    pipeline: str
    query_id: str

    @property
    def folder(self) -> str:
        """The folder below the lake."""
        return f"streams/{self.pipeline}/{self.query_id}"


def current(lake: Lake, pipeline: Pipeline) -> Checkpoint:
    """Return the checkpoint to go on from; a new one where there is none yet.

    Raises:
        StreamChanged: its state was made of other events than the pipeline declares now.
        CheckpointDamaged: the record of it cannot be read.
    """
    told, record = _told(lake, pipeline), _record(pipeline)
    if told is None:
        checkpoint = Checkpoint(pipeline.name, uuid4().hex)
        made = {"query_id": checkpoint.query_id, "made_for": _made_for(lake, pipeline)}
        lake.files.write_line(record, json.dumps(made))
        return checkpoint
    _refuse_other(lake, pipeline, told["made_for"])
    return Checkpoint(pipeline.name, told["query_id"])


def refuse_changed(lake: Lake, pipeline: Pipeline) -> None:
    """Refuse what `current` would, without making a checkpoint where there is none.

    Raises:
        StreamChanged, CheckpointDamaged: as there.
    """
    told = _told(lake, pipeline)
    if told is not None:
        _refuse_other(lake, pipeline, told["made_for"])


def recorded(lake: Lake, name: str, parts: tuple[str, ...], remedy: str) -> dict[str, Any] | None:
    """Return what a file below the lake records, which has these parts; None where there is none.

    Raises:
        CheckpointDamaged: it cannot be read; its message ends with the remedy.
    """
    if not lake.files.has(name):
        return None
    told: Any = None
    with suppress(ValueError):
        told = json.loads(lake.files.first_line(lake.path(name), LONGEST) or "")
    if not isinstance(told, dict) or not told.keys() >= set(parts):
        raise CheckpointDamaged(f"{lake.path(name)} is no record of a stream, as if cut off: {remedy}")
    return told


def forget(lake: Lake, pipeline: Pipeline) -> None:
    """Remove the checkpoint, with its state: the next one begins with the events table."""
    lake.files.delete(_record(pipeline))  # first: who is cut off here leaves a folder that nobody reads
    lake.files.delete(f"streams/{pipeline.name}")


def _told(lake: Lake, pipeline: Pipeline) -> dict[str, Any] | None:
    return recorded(lake, _record(pipeline), ("query_id", "made_for"), _remedy(pipeline))


def _refuse_other(lake: Lake, pipeline: Pipeline, made_for: dict[str, object]) -> None:
    made = _made_for(lake, pipeline)
    differing = sorted(name for name in made if made_for.get(name) != made[name])
    if differing:
        was, now = ({name: each.get(name) for name in differing} for each in (made_for, made))
        raise StreamChanged(
            f"{pipeline.name}: the stream's checkpoint was made for other {', '.join(differing)} ({was}, now {now}) "
            f"and cannot follow: {_remedy(pipeline)}"
        )


def _remedy(pipeline: Pipeline) -> str:
    return f"`scoreline stream start {pipeline.name} --rebuild` begins anew from the events table"


def _record(pipeline: Pipeline) -> str:
    return f"streams/{pipeline.name}/checkpoint.json"


def _made_for(lake: Lake, pipeline: Pipeline) -> dict[str, object]:
    """Return all that the state depends on."""
    name, source = pipeline.events
    return {
        "format": FORMAT,
        "events": name,
        "table": lake.identity(f"events/{name}"),
        "entity key": pipeline.entity_key,
        "columns": dict(source.columns),
    }
