"""What a pipeline's history demands of its declaration now: nothing that is there is silently reinterpreted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.check.findings import Finding, faulty, fine, noted
from jobs.errors import CheckpointDamaged, StreamChanged
from jobs.lake import Lake
from jobs.spec import Pipeline
from jobs.stream.checkpoint import refuse_changed
from jobs.tables import ENTITY_KEY, Table, dimension_table, events_table, features_table

Types = Mapping[str, str]


@dataclass(frozen=True)
class History:
    """A pipeline and the tables that it has so far."""

    lake: Lake
    pipeline: Pipeline

    def findings(self, features: StructType | None) -> Iterator[Finding]:
        """Compare what is declared with what is there; `features` is the schema that features.sql gives now."""
        for table in self._sources():
            yield from self._of_source(table)
        if features is not None:
            yield from self._of_features(features)
        yield from self._of_scores()
        if self.pipeline.stream is not None:
            yield from self._of_stream()

    def _sources(self) -> list[Table]:
        made = {"events": events_table, "dimension": dimension_table}
        return [made[source.kind](name, source) for name, source in self.pipeline.sources.items()]

    def _of_source(self, table: Table) -> Iterator[Finding]:
        stored = self._stored(table.name)
        if stored is None:
            return
        remedy = "keep the type, or have the column delivered under another name"
        changed = list(_changed(table, stored, remedy))
        yield from changed
        if added := _beyond(table.names, stored):
            yield noted(table.name, f"{', '.join(added)} will be added, and NULL in the rows that are there")
        if gone := _beyond(stored, table.names):
            yield noted(table.name, f"{', '.join(gone)} is not declared any more: it stays, and is NULL from now on")
        if not (changed or added or gone):
            yield fine(table.name, "has the columns that are declared")

    def _of_features(self, schema: StructType) -> Iterator[Finding]:
        table = features_table(self.pipeline.name, schema)
        stored = self._stored(table.name)
        if stored is None:
            return
        remedy = "cast it back in features.sql, or give it another name: it is another feature"
        changed = list(_changed(table, stored, remedy))
        yield from changed
        if added := _beyond(table.names, stored):
            yield noted(
                table.name, f"{', '.join(added)} will be added, and NULL for the dates before; train before it is used"
            )
        if gone := _beyond(stored, table.names):
            yield noted(
                table.name, f"features.sql does not give {', '.join(gone)} any more: it stays, and is NULL from now on"
            )
        if not (changed or added or gone):
            yield fine(table.name, "has the features that features.sql gives")

    def _of_scores(self) -> Iterator[Finding]:
        name = f"scores/{self.pipeline.name}"
        if not self.lake.has(name):
            return
        key = self.lake.property_of(name, ENTITY_KEY)
        if key and key != self.pipeline.entity_key:
            yield faulty(
                name,
                f"its keys are of {key}, and entity_key is {self.pipeline.entity_key} now: a score would be of "
                "somebody else; give the pipeline another name, or write entity_key back",
            )
        scores = self.lake.read(name)
        newest = scores.agg({"as_of_date": "max"}).collect()[0][0]  # of partitions: no row is read
        last = scores.where(F.col("as_of_date") == F.lit(newest)).select("model_name").first()
        model = self.pipeline.model.name
        if last is not None and last.model_name != model:
            yield noted(
                name, f"the newest scores are of model {last.model_name}; {model} will score from the next run on"
            )

    def _of_stream(self) -> Iterator[Finding]:
        if not self.lake.has(f"events/{self.pipeline.events[0]}"):
            return
        try:
            refuse_changed(self.lake, self.pipeline)
        except (StreamChanged, CheckpointDamaged) as fault:
            yield faulty("stream", str(fault))

    def _stored(self, name: str) -> Types | None:
        if not self.lake.has(name):
            return None
        return {each.name: each.dataType.simpleString().upper() for each in self.lake.read(name).schema}


def _changed(table: Table, stored: Types, remedy: str) -> Iterator[Finding]:
    for column in table.columns:
        was = stored.get(column.name, column.type)
        if was.replace(" ", "") != column.type.replace(" ", ""):
            yield faulty(table.name, f"column {column.name} is {was} in the table and {column.type} now; {remedy}")


def _beyond(names: Sequence[str] | Types, known: Sequence[str] | Types) -> list[str]:
    return [name for name in names if name not in known]
