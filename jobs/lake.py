"""The Delta tables below one lake root: reading, appending once, and replacing a partition behind a fence."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from delta import exceptions as delta_exceptions
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from jobs.errors import DataFault, Fenced
from jobs.filesystem import FileSystem
from jobs.tables import APPENDS, VERSION, Table, pairs

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
class Fence:
    """The right to write once to a table.

    An application id, a version above the last one that it committed, and the table's version at that time.
    """

    app_id: str
    version: int
    since: int


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
            DataFault: a column is there with another type.
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
        if other := {name: value for name, value in table.properties.items() if not has(name).contains(value)}:
            self._define(table, f"ALTER TABLE delta.`{self.path(table.name)}` SET TBLPROPERTIES ({pairs(other)})")

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

    def appended(self, name: str) -> int:
        """Return the number of the last append to a table of deliveries; -1 before the first."""
        return self.fence(name, APPENDS).version - 1

    def fence(self, name: str, app_id: str) -> Fence:
        """Return the right to be the next to write as `app_id`; of two that hold the same, one alone can commit."""
        snapshot = self._snapshot(name)
        found = snapshot.transactions().get(app_id)
        version = 0 if found.isEmpty() else int(found.get()) + 1
        return Fence(app_id, version, int(snapshot.version()))

    def append_once(self, frame: DataFrame, name: str, app_id: str) -> None:
        """Append `frame` unless `app_id` has written before: doing it again is right and changes nothing."""
        writer = frame.write.format("delta").mode("append")
        with _conflicts_of(name):
            writer.option("txnAppId", app_id).option("txnVersion", 0).save(self.path(name))

    def append(self, frame: DataFrame, name: str, fence: Fence) -> None:
        """Append `frame` as the holder of `fence`.

        Raises:
            Fenced: somebody else used this fence first; nothing was written.
        """
        self._commit(frame.write.format("delta").mode("append"), name, fence)

    def deliver(self, frame: DataFrame, table: Table, fence: Fence) -> None:
        """Append `frame` to a table of deliveries as the holder of `fence`, which is one of `APPENDS`.

        Raises:
            Fenced: somebody else appended first; nothing was written.
        """
        self.append(
            frame.withColumn(VERSION, F.lit(fence.version).cast("bigint")).select(*table.names), table.name, fence
        )

    def replace(self, frame: DataFrame, name: str, where: str, fence: Fence) -> None:
        """Replace the rows that match `where`, and no other, as the holder of `fence`.

        Raises:
            Fenced: somebody else used this fence first; nothing was written.
        """
        writer = frame.write.format("delta").mode("overwrite").option("replaceWhere", where)
        self._commit(writer, name, fence)

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

    def _commit(self, writer: Any, name: str, fence: Fence) -> None:
        mine = uuid.uuid4().hex
        fenced = writer.option("txnAppId", fence.app_id).option("txnVersion", fence.version)
        with _conflicts_of(name):
            fenced.option("userMetadata", mine).save(self.path(name))
        # Delta drops a version that is not higher than the last without a word: only the log tells.
        if not self._is_in_log(name, fence.since, mine):
            raise Fenced(
                f"{name}: another attempt of {fence.app_id} committed first; nothing was written by this one. "
                "Let the other one end, then run the task again"
            )

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
        jvm: Any = self.spark._jvm  # noqa: SLF001  reason: there is no public way to a table's transactions
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path(name))  # noqa: SLF001  reason: as above
        nothing = jvm.scala.Option.empty()
        return log.update(False, nothing, nothing)  # noqa: FBT003  reason: Scala's signature; a stale one will not do


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
