"""The Delta tables: columns with comments, partitions and properties."""

from dataclasses import dataclass, field, replace

from pyspark.sql.types import StructType

from jobs.spec import Source

# Whoever appends to a table of what was delivered does so under this application id, which gives each append a number.
APPENDS = "append"
VERSION = "table_version"
# A property that says whose the keys of a table are. Once set it stays: another one would make them somebody else's.
ENTITY_KEY = "scoreline.entityKey"


@dataclass(frozen=True)
class Column:
    """A column: name, SQL type and what it means."""

    name: str
    type: str
    comment: str

    @property
    def ddl(self) -> str:
        """The column in a statement that creates or alters a table."""
        return f"`{self.name}` {self.type} COMMENT {_quoted(self.comment)}"


@dataclass(frozen=True)
class Table:
    """A table: its name below the lake root, its columns, partitions and properties."""

    name: str
    columns: tuple[Column, ...]
    partitions: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)

    def ddl(self, path: str) -> str:
        """Return the statement that creates this table at `path`, if it is not there."""
        columns = ", ".join(column.ddl for column in self.columns)
        partitions = f" PARTITIONED BY ({', '.join(self.partitions)})" if self.partitions else ""
        properties = f" TBLPROPERTIES ({pairs(self.properties)})" if self.properties else ""
        return f"CREATE TABLE IF NOT EXISTS delta.`{path}` ({columns}) USING delta{partitions}{properties}"

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]


def pairs(properties: dict[str, str]) -> str:
    """Return properties as a statement has them."""
    return ", ".join(f"'{key}' = '{value}'" for key, value in properties.items())


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_DELIVERY = (
    Column("day", "DATE", "the data interval [day, day + 1) that the file was delivered for"),
    Column(
        "source_file", "STRING", "the landing file, below the landing folder; of a message kafka:topic/partition/offset"
    ),
    Column("file_digest", "STRING", "SHA-256 of the landing file, or of the message"),
)
_IDENTITY = (
    Column(
        "event_id",
        "STRING",
        "the upstream id, else a digest of the file and the row, or the message's place in its topic",
    ),
    Column("event_time", "TIMESTAMP", "when it happened"),
    Column("arrived_at", "TIMESTAMP", "when it was delivered"),
)
# Rows know the append that brought them: "as it stood" is a filter, for every reader, and no compaction disturbs it.
_VERSION = Column(VERSION, "BIGINT", "number of the append that brought the row; as it stood at V: the rows up to V")
# The table of erasures: whoever read rows before it changed may have read a key that was erased since.
ERASURES = "erasures"
# As long as Delta keeps its log by default.
_KEPT = {"delta.deletedFileRetentionDuration": "interval 30 days"}
# Of tables that get a commit or more a second. What was compacted away stays for whoever began to read or write before:
# for longer than a task may take.
_SMALL_APPENDS = {
    "delta.checkpointInterval": "100",
    "delta.deletedFileRetentionDuration": "interval 6 hours",
}
# Only these have statistics: keys hash badly into ranges, and statistics of raw text would copy it into the log.
_SKIPPING = {**_SMALL_APPENDS, "delta.dataSkippingStatsColumns": f"event_time,arrived_at,day,file_digest,{VERSION}"}
_DIMENSION_SKIPPING = {**_KEPT, "delta.dataSkippingStatsColumns": f"valid_from,day,file_digest,{VERSION}"}


def events_table(name: str, source: Source) -> Table:
    """Return the table of a source of events."""
    own = tuple(Column(column, kind.upper(), f"as delivered: {column}") for column, kind in source.columns.items())
    return Table(f"events/{name}", (*_IDENTITY, *_without(own, _IDENTITY), *_DELIVERY, _VERSION), (), _SKIPPING)


def dimension_table(name: str, source: Source) -> Table:
    """Return the table of a dimension: each row as delivered, valid from then until the key's next row.

    Rows that repeat what was known are kept too, or a delivery that comes late, between two others, could not be
    told from one that was never there.
    """
    own = tuple(Column(column, kind.upper(), f"as delivered: {column}") for column, kind in source.columns.items())
    since = Column("valid_from", "TIMESTAMP", "when it was delivered; valid until the next row of the key")
    return Table(f"dimensions/{name}", (since, *own, *_DELIVERY, _VERSION), (), _DIMENSION_SKIPPING)


def quarantine_table(name: str) -> Table:
    """Return the table of the rows that a source delivered and the audit rejected."""
    return Table(
        f"quarantine/{name}",
        (
            Column("event_id", "STRING", "identifies the row, as in the source's own table"),
            Column("reasons", "ARRAY<STRING>", "why it was rejected, one for each expectation that it breaks"),
            Column("raw", "STRING", "the row as delivered, as JSON"),
            *_DELIVERY,
            Column("run_id", "STRING", "the run that rejected it; of a message the place that its topic was read from"),
        ),
        properties={**_SMALL_APPENDS, "delta.dataSkippingStatsColumns": "day,file_digest"},
    )


_SCORE = (
    Column("key", "STRING", "entity key"),
    Column("score", "FLOAT", "the model's score, 32 bits"),
    Column("as_of", "TIMESTAMP", "the instant that the score looks back from"),
    Column("as_of_date", "DATE", "date of as_of; partition"),
    Column("arm", "STRING", "which model of an experiment; partition"),
    Column("model_name", "STRING", "registered model"),
    Column("model_version", "STRING", "its version"),
    Column("model_digest", "STRING", "SHA-256 of its artefact"),
    Column("events_version", "BIGINT", "version of the events table that was read"),
    Column("dimension_versions", "MAP<STRING,BIGINT>", "version of each dimension's table that was read"),
    Column("run_id", "STRING", "the run that scored"),
    Column("scored_at", "TIMESTAMP", "when the score was written first; a rerun that gives the same rows keeps it"),
)
_BY_DATE = {**_KEPT, "delta.dataSkippingStatsColumns": "as_of"}
# Each catch-up leaves an application id of its own. Those of a batch that may come again are written again by each
# batch; where deliveries are numbered, ids are for ever.
_LIVE = {**_BY_DATE, **_SMALL_APPENDS, "delta.setTransactionRetentionDuration": "interval 30 days"}


def scores_table(pipeline: str) -> Table:
    """Return the table of scores, a partition for each as_of date and arm."""
    return Table(f"scores/{pipeline}", _SCORE, ("as_of_date", "arm"), _BY_DATE)


def keyed(table: Table, entity_key: str) -> Table:
    """Return a table that is on record as having the keys of one column of the sources, and of no other ever."""
    return replace(table, properties={**table.properties, ENTITY_KEY: entity_key})


def live_scores_table(pipeline: str) -> Table:
    """Return the append-only table of what was scored between two runs."""
    return replace(scores_table(pipeline), name=f"scores_live/{pipeline}", properties=_LIVE)


def live_quarantine_table(pipeline: str) -> Table:
    """Return the table of the rows of features that broke a rule between two runs, and were not scored."""
    return Table(
        f"quarantine_live/{pipeline}",
        (
            Column("key", "STRING", "entity key"),
            Column("as_of", "TIMESTAMP", "the instant that the features look back from"),
            Column("reasons", "ARRAY<STRING>", "one for each expectation that the row breaks"),
            Column("features", "STRING", "the features, as JSON"),
            Column("model_name", "STRING", "registered model that would have scored"),
            Column("model_version", "STRING", "its version"),
            Column("events_version", "BIGINT", "version of the events table that was read"),
            Column("run_id", "STRING", "the stream"),
        ),
        properties=_LIVE,
    )


def features_table(pipeline: str, schema: StructType) -> Table:
    """Return the table of what the model saw, a partition for each as_of date; `schema` is that of the features."""
    comments = {"key": "entity key", "as_of": "the instant that the features look back from"}
    own = (
        Column(field.name, field.dataType.simpleString().upper(), comments.get(field.name, f"feature {field.name}"))
        for field in schema
    )
    date = Column("as_of_date", "DATE", "date of as_of; partition")
    return Table(f"features/{pipeline}", (*own, date), ("as_of_date",), _BY_DATE)


def superseded(table: Table) -> Table:
    """Return the append-only table of the rows that a later run replaced in a table of scores or features."""
    kind, pipeline = table.name.split("/")
    when = Column("superseded_at", "TIMESTAMP", "when the replacement was written")
    return Table(f"{kind}_superseded/{pipeline}", (*table.columns, when), table.partitions, table.properties)


def quality_table(pipeline: str) -> Table:
    """Return the table of what was measured and judged."""
    return Table(
        f"quality/{pipeline}",
        (
            Column("as_of", "TIMESTAMP", "end of the data interval"),
            Column("step", "STRING", "ingest, score or publish"),
            Column("suite", "STRING", "expectation suite, empty for a plain count"),
            Column("metric", "STRING", "the expectation, or what was counted"),
            Column("column", "STRING", "the column it is about, empty for the table"),
            Column("success", "BOOLEAN", "the verdict"),
            Column("observed", "STRING", "what was observed"),
            Column("run_id", "STRING", "the run"),
            Column("measured_at", "TIMESTAMP", "when it was written"),
        ),
    )


def publications_table(pipeline: str) -> Table:
    """Return the ledger of generations: a row for each thing that happened to one."""
    return Table(
        f"publications/{pipeline}",
        (
            Column("token", "BIGINT", "the generation; rises with each reservation"),
            Column("event", "STRING", "what happened: jobs/publication/ledger.py has the words"),
            Column("at", "TIMESTAMP", "when it happened"),
            Column("as_of", "TIMESTAMP", "as_of of the scores"),
            Column("run_id", "STRING", "the run that published"),
            Column("rows", "BIGINT", "scores in the generation"),
            Column("checksum", "STRING", "additive checksum over hash and score, modulo 2^64"),
            Column("buckets", "BIGINT", "packed blocks of the generation"),
            Column("note", "STRING", "why, in words"),
            Column("manifest", "STRING", "the head record that was verified or went live, as JSON"),
        ),
    )


def _without(columns: tuple[Column, ...], taken: tuple[Column, ...]) -> tuple[Column, ...]:
    names = {column.name for column in taken}
    return tuple(column for column in columns if column.name not in names)
