"""What a pipeline's YAML may say, as types."""

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from jobs.spec.declared import Declared
from jobs.spec.publication import Fallback, Publication
from jobs.spec.stream import Kafka, Stream

IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
SQL_TYPE = re.compile(
    r"string|boolean|tinyint|smallint|int|bigint|float|double|date|timestamp|decimal\((?P<digits>\d{1,2}),\s*(?P<scale>\d{1,2})\)"
)
DIGITS = 38  # of Spark's DECIMAL
# Columns that jobs add to what was delivered, for good or on the way to a table.
RESERVED = frozenset(
    {"key", "as_of", "day", "file_digest", "source_file", "delivered_at", "uri", "parse_fault", "raw", "n", "faults",
     "reasons", "erased", "run_id", "table_version", "newest", "event", "history", "valid_from", "valid_to", "content",
     "before", "new"}
)  # fmt: skip
PREFIXES = ("typed_", "fault_")
VIEWS = frozenset({"events", "spine", "as_ofs", "features"})
CRON = re.compile(r"([0-5]?\d) ([01]?\d|2[0-3]) \* \* \*")
ALIAS = re.compile(r"(?!v\d+$|latest$)[a-z][a-z0-9_]*")
BESIDE = ("_stream", "_maintenance", "_backfill")  # what the ids of further DAGs of a pipeline end with
ROLES = ("event_time", "arrived_at", "event_id")


def _identifier(value: str) -> str:
    if not IDENTIFIER.fullmatch(value):
        raise ValueError(f"'{value}' is not a name: write lower-case letters, digits and _, a letter first")
    return value


def _name(value: str) -> str:
    if value.endswith(BESIDE):
        raise ValueError(f"'{value}' ends with {' or '.join(BESIDE)}, as a pipeline's further DAGs do: choose another")
    return _identifier(value)


def _column(value: str) -> str:
    if value in RESERVED or value.startswith(PREFIXES):
        raise ValueError(
            f"'{value}' is a name that Scoreline uses itself: have this column delivered under another name"
        )
    return _identifier(value)


def _alias(value: str) -> str:
    if not ALIAS.fullmatch(value):
        raise ValueError(
            f"'{value}' is not an alias: write lower-case letters, digits and _, a letter first; "
            "MLflow keeps 'latest' and v1, v2, ... for itself"
        )
    return value


def _sql_type(value: str) -> str:
    found = SQL_TYPE.fullmatch(value)
    if not found:
        raise ValueError(
            f"'{value}' is not a column type: write string, int, bigint, double, date, timestamp, decimal(10,2)"
        )
    if found["digits"] and not max(1, int(found["scale"])) <= int(found["digits"]) <= DIGITS:
        raise ValueError(f"'{value}' can't be: write decimal(p,s) with p of 1 to {DIGITS} digits, s of them fractional")
    return value


def _landing(value: str) -> str:
    if "{day}" not in value:
        raise ValueError(
            f"'{value}' does not say where the day goes: write {{day}} in it, as in sales/date={{day}}/*.csv"
        )
    if value.startswith("/") or ".." in value.split("/"):
        raise ValueError(f"'{value}' leaves the landing folder: write a path relative to it")
    if set("{}") & set(value.replace("{day}", "")):
        raise ValueError(f"'{value}' has braces other than {{day}}, which not all that read it know: write * or [ab]")
    return value


def _cron(value: str) -> str:
    if not CRON.fullmatch(" ".join(value.split())):
        raise ValueError(
            f"'{value}' is not a daily schedule: write five fields, as in 30 2 * * * (minute, hour, * * *)"
        )
    return value


Identifier = Annotated[str, AfterValidator(_identifier)]
PipelineName = Annotated[str, AfterValidator(_name)]
Column = Annotated[str, AfterValidator(_column)]
SqlType = Annotated[str, AfterValidator(_sql_type)]
Landing = Annotated[str, AfterValidator(_landing)]
Alias = Annotated[str, AfterValidator(_alias)]
Cron = Annotated[str, AfterValidator(_cron)]


class Schedule(Declared):
    """When the DAG runs, and how it deals with a task that fails."""

    cron: Cron = Field(
        "0 0 * * *", description="Cron expression, UTC, once a day: when the run of the day before starts."
    )
    start_date: date = Field(description="Day of the first data interval.")
    end_date: date | None = Field(None, description="Day of the last data interval, for a source that ends.")
    max_active_runs: PositiveInt = Field(1, description="Runs of this pipeline at the same time.")
    retries: int = Field(2, ge=0, description="Retries of a task whose failure a retry can mend.")
    retry_delay_s: PositiveInt = Field(30, description="Seconds before the first retry; they double with each.")
    timeout_minutes: PositiveInt = Field(60, description="Longest time that a task may take, in minutes.")

    @model_validator(mode="after")
    def _end_is_not_before_start(self) -> "Schedule":
        if self.end_date and self.end_date < self.start_date:
            raise ValueError(f"end_date {self.end_date} is before start_date {self.start_date}: write a later end_date")
        return self

    def newest_as_of(self, now: datetime) -> datetime:
        """Return the newest as_of that a run started at `now` (UTC) can have: a midnight, the last one at most."""
        today = now.date() if self.end_date is None else min(now.date(), self.end_date + timedelta(days=1))
        return datetime.combine(today, time(), UTC)


class Source(Declared):
    """One kind of file that an upstream system delivers, and the table that it becomes."""

    kind: Literal["events", "dimension"] = Field(
        "events", description="events: things that happened; dimension: attributes, kept with validity intervals."
    )
    landing: Landing = Field(description="Glob of an interval's files under the landing folder, with {day}.")
    first_day: date = Field(description="Day of the first file.")
    deadline_hours: float = Field(
        6, ge=0, allow_inf_nan=False, description="Hours after the interval's end until which a file may come."
    )
    columns: dict[Column, SqlType] = Field(min_length=1, description="The file's columns in their order, with types.")
    event_time: str | None = Field(None, description="Column that says when the event happened (events only).")
    arrived_at: str | None = Field(
        None,
        description="Column that says when it was delivered; default: the interval's end, of a message when it came.",
    )
    event_id: str | None = Field(
        None,
        description="Column that identifies an event; default: a digest of file and row, of a message its place in the "
        "topic. An event that comes both as a message and in the day's file counts once only where this is declared.",
    )
    suite: Identifier = Field(description="Expectation suite of the staged rows.")

    @model_validator(mode="after")
    def _columns_are_declared(self) -> "Source":
        if self.kind == "events" and self.event_time is None:
            raise ValueError("event_time is missing: name the column that says when the event happened")
        for role in ROLES:
            column = getattr(self, role)
            if column is not None and column not in self.columns:
                raise ValueError(f"{role} names '{column}', which is not among columns: {', '.join(self.columns)}")
        for role in ("event_time", "arrived_at"):
            column = getattr(self, role)
            if column is not None and self.columns[column] not in ("date", "timestamp"):
                raise ValueError(f"{role} column '{column}' is {self.columns[column]}: declare it as date or timestamp")
        return self

    @model_validator(mode="after")
    def _roles_keep_their_names(self) -> "Source":
        """Refuse a column that would be replaced by what the role of its name makes."""
        for role in ROLES:
            if role in self.columns and getattr(self, role) != role:
                raise ValueError(
                    f"columns has '{role}', which is not what {role} names: "
                    f"write {role}: {role}, or have this column delivered under another name"
                )
        return self


class ModelRef(Declared):
    """The registered model that scores."""

    name: Identifier = Field(description="Name of the registered model.")
    alias: Alias = Field("champion", description="Alias that a run resolves to a version, once, at its start.")


class FeatureRef(Declared):
    """The features, which `features.sql` defines."""

    suite: Identifier = Field("features", description="Expectation suite of the features.")


class LabelRef(Declared):
    """The label, which `labels.sql` defines."""

    horizon_days: PositiveInt = Field(description="Days after as_of that the label looks at.")

    @property
    def horizon(self) -> timedelta:
        """The time after as_of at which a label is mature."""
        return timedelta(days=self.horizon_days)


class Training(Declared):
    """The as_of dates of the training set, and how they are split in time."""

    first_as_of: date = Field(description="First as_of of the training set.")
    every_days: PositiveInt = Field(7, description="Days between two as_of dates of the training set.")
    calibration_days: PositiveInt = Field(description="Days of as_of dates that calibrate the model.")
    test_days: PositiveInt = Field(description="Days of as_of dates, the last mature ones, that only test it.")


class ScoreRef(Declared):
    """The scores."""

    suite: Identifier = Field("scores", description="Expectation suite of the scores.")


class Pipeline(Declared):
    """A pipeline: all of one YAML file."""

    name: PipelineName = Field(
        description="Name of the pipeline, of its DAG and of its tables; the file is called so too."
    )
    description: str = Field(min_length=1, description="What the scores are for.")
    owner: str = Field(min_length=1, description="Who answers for it.")
    tags: tuple[str, ...] = Field((), description="Tags of the DAG.")
    entity_key: Column = Field(description="Column, in every source, of the key that a score belongs to.")
    schedule: Schedule
    sources: dict[Identifier, Source] = Field(
        min_length=1, description="One source of events, any number of dimensions."
    )
    features: FeatureRef = Field(default_factory=lambda: FeatureRef(suite="features"))
    label: LabelRef
    training: Training
    model: ModelRef
    scores: ScoreRef = Field(default_factory=lambda: ScoreRef(suite="scores"))
    publication: Publication = Field(default_factory=lambda: Publication.model_validate({}))
    stream: Stream | None = Field(None, description="What keeps scores fresh between two runs; without it, nothing.")
    fallback: Fallback | None = Field(None, description="What an unknown key gets; without it, 404.")

    @model_validator(mode="after")
    def _sources_fit(self) -> "Pipeline":
        events = [name for name, source in self.sources.items() if source.kind == "events"]
        if len(events) != 1:
            raise ValueError(f"sources has {len(events)} of kind events: declare exactly one")
        for name, source in self.sources.items():
            if source.columns.get(self.entity_key) != "string":
                raise ValueError(f"sources.{name}.columns must have the entity key: write {self.entity_key}: string")
            if name in VIEWS:
                raise ValueError(f"sources.{name}: SQL reads another view of this name; choose another")
        return self

    @property
    def events(self) -> tuple[str, Source]:
        """The name and the declaration of the one source of events."""
        return next((name, source) for name, source in self.sources.items() if source.kind == "events")

    @property
    def topic(self) -> Kafka | None:
        """The topic that live events come from, if there is one."""
        return self.stream.kafka if self.stream else None

    @property
    def dimensions(self) -> dict[str, Source]:
        """The sources of attributes, by name."""
        return {name: source for name, source in self.sources.items() if source.kind == "dimension"}

    @property
    def tables(self) -> list[str]:
        """The tables of the sources, by their names below the lake's root: the events first."""
        return [f"events/{self.events[0]}", *(f"dimensions/{name}" for name in self.dimensions)]
