"""A key's rows in the Delta tables, and the files that still have them: no log and no plan ever shows the key."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from pyarrow import parquet
from pyarrow.fs import FileInfo, FileSelector, FileSystem
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.arrowfiles import arrow_files
from jobs.erasure.scope import Scope
from jobs.erasure.words import named_in_sql, shown_in_java
from jobs.errors import ErasureUnfinished, Fenced
from jobs.lake import Lake
from jobs.stream.way import way_through

LOG = logging.getLogger(__name__)
TRIES = 20
# What no version has had and is younger may be somebody's commit of the next moment.
GRACE = timedelta(minutes=10)
SOUGHT = "sought STRING, pattern STRING"
# The tables of a pipeline that have keys.
OF_PIPELINES = ("features", "scores", "features_superseded", "scores_superseded", "scores_live", "quarantine_live")


@dataclass(frozen=True)
class Kept:
    """A table that may have the key: `condition` says of which rows `kept`, and `wanted` has it in `sought`.

    `columns` are the types of those that the condition looks at.
    """

    name: str
    condition: str
    columns: Mapping[str, str]

    @property
    def schema(self) -> str:
        """The columns, as SQL declares them."""
        return ", ".join(f"`{name}` {kind}" for name, kind in self.columns.items())


def by_column(name: str, column: str, kind: str = "string") -> Kept:
    """Return a table that has keys in a column, which may be of another type where it is the key of no pipeline."""
    own = f"kept.`{column}`" if kind == "string" else f"CAST(kept.`{column}` AS STRING)"
    return Kept(name, f"{own} = wanted.sought", {column: kind})


def by_text(name: str, entity_key: str) -> Kept:
    """Return a table of rejected rows: by their field where they are JSON that has it, else by what they show."""
    field = f"{named_in_sql('kept.raw', entity_key)} = wanted.sought"
    word = "rlike(concat_ws(' ', kept.raw, kept.reasons), wanted.pattern)"
    return Kept(name, f"coalesce({field}, {word})", {"raw": "STRING", "reasons": "ARRAY<STRING>"})


def kept_tables(scope: Scope) -> Iterator[Kept]:
    """Give all tables of a scope that may have its key."""
    for name, source in scope.sources.items():
        table = f"{'events' if source.kind == 'events' else 'dimensions'}/{name}"
        yield by_column(table, scope.entity_key, source.columns[scope.entity_key])
        yield by_text(f"quarantine/{name}", scope.entity_key)
    for pipeline in scope.pipelines:
        for kind in OF_PIPELINES:
            yield by_column(f"{kind}/{pipeline.name}", "key")


@dataclass(frozen=True)
class Rows:
    """The rows of one key in the tables of a lake."""

    lake: Lake
    key: str

    def has(self, table: Kept) -> bool:
        """Return whether there is such a table that has the columns: one that was declared since is not there yet."""
        return self.lake.has(table.name) and table.columns.keys() <= set(self.lake.read(table.name).columns)

    def count(self, table: Kept) -> int:
        """Return how many rows of a table are the key's."""
        return self._of_key(self.lake.read(table.name), table).count()

    def erase(self, table: Kept) -> int:
        """Delete the key's rows, and return how many there were; live appends go on meanwhile.

        Raises:
            Fenced: others write to the table all the time.
        """
        found = self.count(table)
        if found:
            self._deleted(table)
        return found

    def sweep(self, table: Kept) -> int:
        """Remove the files of a table that have the key and belong to no version from now on; return how many.

        Those go too that nobody can read and nobody is writing any more: a writer who was killed left them. Others
        stay, for who reads an older version. Vacuum would take the files of commits that are just being made.

        Raises:
            ErasureUnfinished: somebody is about to commit such a file, or died a moment ago.
        """
        files, folder = arrow_files(self.lake.path(table.name))
        live = {_own(uri) for uri in DeltaTable(self.lake.path(table.name)).file_uris()}
        listed = files.get_file_info(FileSelector(folder, recursive=True))
        old = [each for each in listed if each.extension == "parquet" and _is_of_no_version(each, live)]
        having = self._having(table, folder, files, old)
        removed = {_own(path) for path in self.lake.removed_files(table.name)} if having else set()
        young = [each for each in having if each.base_name not in removed and _is_young(each)]
        for each in having:
            if each not in young:
                _remove(files, each)
        if young:
            raise ErasureUnfinished(
                f"{table.name}: {len(young)} files with the key are of no version yet, or of a writer who was killed: "
                f"let what is at work end, and run the erasure again after {datetime.now(UTC) + GRACE:%H:%M} UTC"
            )
        return len(having)

    def _having(self, table: Kept, folder: str, files: FileSystem, old: list[FileInfo]) -> list[FileInfo]:
        whole = [each for each in old if _is_whole(files, each)]
        names = self._names_having(table, [each.path.removeprefix(folder) for each in whole]) if whole else set()
        return [each for each in old if each.base_name in names or (each not in whole and not _is_young(each))]

    def _names_having(self, table: Kept, below: list[str]) -> set[str]:
        reader = self.lake.spark.read.schema(table.schema).option("ignoreMissingFiles", value=True)
        rows = reader.parquet(*[f"{self.lake.path(table.name)}{each}" for each in below])
        named = rows.select("*", "_metadata.file_name")
        return {unquote(row.file_name) for row in self._of_key(named, table).select("file_name").distinct().collect()}

    def _of_key(self, rows: DataFrame, table: Kept) -> DataFrame:
        return rows.alias("kept").join(self._sought.alias("wanted"), F.expr(table.condition), "left_semi")

    def _deleted(self, table: Kept) -> None:
        for number in range(TRIES):
            try:
                # Live appends may commit faster than this does: from the second time on they are asked to wait.
                if number and table.name.startswith("events/"):
                    with way_through(self.lake.path(table.name)):
                        self.lake.delete_joined(table.name, self._sought, table.condition)
                else:
                    self.lake.delete_joined(table.name, self._sought, table.condition)
            except Fenced as fault:
                LOG.info("%s: once more: %s", table.name, fault)
            else:
                return
        raise Fenced(f"{table.name}: others wrote at the same moment, {TRIES} times: run the erasure again")

    @property
    def _sought(self) -> DataFrame:
        """The key as a row: a plan names its columns, a literal would be in plans, logs and Delta's own log."""
        return F.broadcast(self.lake.spark.createDataFrame([(self.key, shown_in_java(self.key))], SOUGHT))


def _own(path: str) -> str:
    return unquote(path).rpartition("/")[2]


def _is_of_no_version(file: FileInfo, live: set[str]) -> bool:
    return file.is_file and "/_delta_log/" not in file.path and file.base_name not in live


def _is_whole(files: FileSystem, file: FileInfo) -> bool:
    """Tell whether a Parquet file has its footer, which is written last."""
    try:
        with files.open_input_file(file.path) as opened:
            parquet.read_metadata(opened)
    except FileNotFoundError:  # removed at this moment
        return True
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _is_young(file: FileInfo) -> bool:
    return bool(file.mtime > datetime.now(UTC) - GRACE)


def _remove(files: FileSystem, file: FileInfo) -> None:
    folder = file.path.removesuffix(file.base_name)
    for path in (file.path, f"{folder}.{file.base_name}.crc"):  # Hadoop's checksums are by its side
        if files.get_file_info(path).is_file:
            files.delete_file(path)
