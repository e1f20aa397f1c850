"""The Delta tables below one lake root: reading, and appending and replacing rows behind fences."""

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from delta import exceptions as delta_exceptions
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.errors import DataFault, Fenced
from jobs.fencing import Fence, commit, overtaken
from jobs.filesystem import FileSystem
from jobs.tables import APPENDS, ENTITY_KEY, ERASURES, VERSION, Table, pairs

LONGEST_COMMIT_INFO = 2**20  # bytes
# They have no base of their own in Python, though they have one in Scala.
CONFLICTS = (
    delta_exceptions.ConcurrentAppendException,
    delta_exceptions.ConcurrentDeleteDeleteException,
    delta_exceptions.ConcurrentDeleteReadException,
    delta_exceptions.ConcurrentTransactionException,
    delta_exceptions.ConcurrentWriteException,
    delta_exceptions.MetadataChangedException,
    delta_exceptions.ProtocolChangedException,
)


@dataclass(frozen=True)
class Lake:
    """The tables below `root`, through `spark`."""

    spark: SparkSession
    root: str

    @property
    def files(self) -> FileSystem:
        """The file system that the tables are on."""
        return FileSystem(self.spark, self.root)

    def path(self, name: str) -> str:
        """Return the path of a table or folder below the root."""
        return f"{self.root.rstrip('/')}/{name}"

    def has(self, name: str) -> bool:
        """Return whether there is a Delta table of that name."""
        return bool(DeltaTable.isDeltaTable(self.spark, self.path(name)))

    def create(self, table: Table) -> None:
        """Create a table with its columns and properties; one that is there gets what it lacks of both.

        Raises:
            DataFault: a column is there with another type, or the keys in it are those of another column.
        """
        if not self.has(table.name):
            self._define(table, table.ddl(self.path(table.name)))
            return
        stored = self.read(table.name).schema
        _refuse_other_types(table, stored)
        missing = [column.ddl for column in table.columns if column.name not in stored.names]
        if missing:
            self._define(table, f"ALTER TABLE delta.`{self.path(table.name)}` ADD COLUMNS ({', '.join(missing)})")
        has = self._snapshot(table.name).metadata().configuration().get
        _refuse_other_keys(table, _given(has(ENTITY_KEY)))
        if other := {name: value for name, value in table.properties.items() if _given(has(name)) != value}:
            self._define(table, f"ALTER TABLE delta.`{self.path(table.name)}` SET TBLPROPERTIES ({pairs(other)})")

    def refuse_other_types(self, table: Table) -> None:
        """Raise `DataFault` where `create` would for a column: before what must not be done in vain."""
        if self.has(table.name):
            _refuse_other_types(table, self.read(table.name).schema)

    def read(self, name: str) -> DataFrame:
        """Return all rows of a table, as it stands now."""
        return self.spark.read.format("delta").load(self.path(name))

    def read_at(self, name: str, version: int) -> DataFrame:
        """Return the rows that a table of deliveries had after its append number `version`, as `appended` gave it.

        It selects rows by the append that brought them and not an old Delta version, so that compaction and vacuum
        change nothing.
        """
        return self.read(name).where(F.col(VERSION) <= version).drop(VERSION)

    def read_version(self, name: str, version: int) -> DataFrame:
        """Return a table as it stood at `version`: the same rows at each action, whoever writes meanwhile."""
        return self.spark.read.format("delta").option("versionAsOf", version).load(self.path(name))

    def version(self, name: str) -> int:
        """Return the newest Delta version of a table."""
        return int(self._snapshot(name).version())

    def identity(self, name: str) -> str:
        """Return the id that a table got when it was created: another one has that name after it was made anew."""
        return str(self._snapshot(name).metadata().id())

    def property_of(self, name: str, key: str) -> str | None:
        """Return what a table's property says; None where it has none of that name."""
        return _given(self._snapshot(name).metadata().configuration().get(key))

    def appended(self, name: str) -> int:
        """Return the number of the last append to a table of deliveries; -1 before the first."""
        return self.fence(name, APPENDS).version - 1

    def fence(self, name: str, app_id: str) -> Fence:
        """Return the right to be the next to write as `app_id`; of two that hold the same, one alone can commit."""
        (found,) = self.fences(name, [app_id])
        return found

    def fences(self, name: str, app_ids: Iterable[str]) -> list[Fence]:
        """Return such a right for each of `app_ids`, all as of one version of the table."""
        snapshot = self._snapshot(name)
        last, times = snapshot.transactions().get, (int(snapshot.version()), self.erasures())
        return [Fence(app_id, 0 if (n := last(app_id)).isEmpty() else int(n.get()) + 1, *times) for app_id in app_ids]

    def erasures(self) -> int:
        """Return the version of the table of erasures; -1 where no key was ever erased."""
        return int(self._snapshot(ERASURES).version())

    def refuse_erased_since(self, erasures: int) -> None:
        """Raise `Fenced` where the table of erasures has moved from that version: what was read may have the key."""
        if self.erasures() != erasures:
            raise Fenced(
                "a key was erased while this attempt was at work, and may be in what it read; nothing was written. "
                "Run the task again"
            )

    def append(self, frame: DataFrame, name: str, *fences: Fence) -> None:
        """Append `frame` as the holder of all `fences`.

        Raises:
            Fenced: somebody else used one of them first; nothing was written.
        """
        self._commit(frame, name, {}, fences)

    def deliver(self, frame: DataFrame, table: Table, fence: Fence) -> None:
        """Append `frame` to a table of deliveries as the holder of `fence`, which is one of `APPENDS`.

        Raises:
            Fenced: somebody else appended first; nothing was written.
        """
        self.append(
            frame.withColumn(VERSION, F.lit(fence.version).cast("bigint")).select(*table.names), table.name, fence
        )

    def replace(self, frame: DataFrame, name: str, where: str, *fences: Fence) -> None:
        """Replace the rows that match `where`, and no other, as the holder of all `fences`.

        Raises:
            Fenced: somebody else used one of them first; nothing was written.
        """
        self._commit(frame, name, {"replaceWhere": where}, fences)

    def delete_joined(self, name: str, other: DataFrame, where: str) -> None:
        """Delete the rows (`kept`) for which a row of `other` (`wanted`) meets the condition; no log has its values.

        Raises:
            Fenced: somebody else wrote at the same moment; nothing was deleted.
        """
        with _conflicts_of(name):
            table = DeltaTable.forPath(self.spark, self.path(name)).alias("kept")
            table.merge(other.alias("wanted"), where).whenMatchedDelete().execute()

    def removed_files(self, name: str) -> list[str]:
        """Return the paths of the files that a version had, and a later one has not, as far as the log remembers."""
        files = self._snapshot(name).tombstones().toDF()
        return [row.path for row in DataFrame(files, self.spark).select("path").collect()]

    def file_count(self, name: str) -> int:
        """Return how many files hold the rows of a table, as it stands now."""
        return int(self._snapshot(name).numOfFiles())

    def compact(self, name: str) -> None:
        """Put the rows of small files of a table into fewer, larger ones: the same rows, and no news for a stream.

        Raises:
            Fenced: somebody else rewrote or removed the same files first; nothing was written.
        """
        with _conflicts_of(name):
            DeltaTable.forPath(self.spark, self.path(name)).optimize().executeCompaction()

    def vacuum(self, name: str) -> None:
        """Remove the files that no version of a table has had for as long as its properties say."""
        DeltaTable.forPath(self.spark, self.path(name)).vacuum()

    def _define(self, table: Table, statement: str) -> None:
        with _conflicts_of(table.name):
            self.spark.sql(statement)

    def _commit(self, frame: DataFrame, name: str, options: dict[str, str], fences: Sequence[Fence]) -> None:
        """Write `frame` and use up all `fences`, in one commit; Delta's own writer takes one application id alone."""
        mine = uuid.uuid4().hex
        with _conflicts_of(name):
            erasures = min(fence.erasures for fence in fences)
            check = partial(self.refuse_erased_since, erasures)
            commit(frame, self._log(name), {**options, "userMetadata": mine}, fences, check)
        if not self._is_in_log(name, min(fence.since for fence in fences), mine):
            raise overtaken(name, fences[0])

    def _is_in_log(self, name: str, since: int, mark: str) -> bool:
        """Tell whether one of the commits after `since` carries `mark`, from the newest back to the first that is gone.

        Where a stream keeps the log short, who took longer than that has "committed" a version of which nobody reads.
        Its commitInfo is the first line of a commit, as Delta writes them.
        """
        for version in range(self.version(name), since, -1):
            file = f"{name}/_delta_log/{version:020}.json"
            if not self.files.has(file):
                return False
            line = self.files.first_line(self.path(file), LONGEST_COMMIT_INFO)
            if json.loads(line or "{}").get("commitInfo", {}).get("userMetadata") == mark:
                return True
        return False

    def _snapshot(self, name: str) -> Any:
        nothing = self._jvm.scala.Option.empty()
        return self._log(name).update(False, nothing, nothing)  # noqa: FBT003  reason: Scala's; a stale one will not do

    def _log(self, name: str) -> Any:
        session = self.spark._jsparkSession  # noqa: SLF001  reason: there is no public way to a table's transactions
        return self._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(session, self.path(name))

    @property
    def _jvm(self) -> Any:
        return self.spark._jvm  # noqa: SLF001  reason: as above


@contextmanager
def _conflicts_of(name: str) -> Iterator[None]:
    """Turn what Delta raises of writers at the same instant into `Fenced`: who comes again finds a settled table."""
    try:
        yield
    except CONFLICTS as error:
        raise Fenced(
            f"{name}: another writer committed at the same moment; nothing was written by this one. "
            f"Run the task again ({type(error).__name__})"
        ) from error


def _refuse_other_types(table: Table, stored: StructType) -> None:
    known = {field.name: field.dataType.simpleString().upper() for field in stored}
    for column in table.columns:
        was = known.get(column.name, column.type)
        if was.replace(" ", "") != column.type.replace(" ", ""):
            raise DataFault(
                f"{table.name}: column {column.name} is {was} in the table and {column.type} now; "
                "keep the type, or give the column another name"
            )


def _given(option: Any) -> str | None:
    """Return what a Scala Option of a string has."""
    return str(option.get()) if option.isDefined() else None


def _refuse_other_keys(table: Table, was: str | None) -> None:
    now = table.properties.get(ENTITY_KEY, was)
    if was != now and was is not None:
        raise DataFault(
            f"{table.name}: its keys are of {was}, and entity_key is {now} now: a score would be of somebody else; "
            f"give the pipeline another name, or write entity_key: {was}"
        )
