"""The Delta tables below one lake root: reading, appending once, and replacing a partition behind a fence."""

import uuid
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from jobs.errors import Fenced
from jobs.filesystem import FileSystem
from jobs.tables import Table

NEVER = -1


@dataclass(frozen=True)
class Fence:
    """The right to write once: an application id and a version above the last one that it committed."""

    app_id: str
    version: int


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
        """Create a table with its comments and properties, unless it is there."""
        if not self.has(table.name):
            self.spark.sql(table.ddl(self.path(table.name)))

    def read(self, name: str) -> DataFrame:
        """Return all rows of a table, as it stands now."""
        return self.spark.read.format("delta").load(self.path(name))

    def read_at(self, name: str, version: int) -> DataFrame:
        """Return the rows that an append-only table had at `version`.

        It selects rows by the commit that added them (row tracking) and not an old Delta version, so that compaction
        and vacuum change nothing.
        """
        return self.read(name).where(f"_metadata.row_commit_version <= {version}")

    def version(self, name: str) -> int:
        """Return the newest version of a table."""
        return int(self._snapshot(name).version())

    def last_transaction(self, name: str, app_id: str) -> int:
        """Return the last version that `app_id` committed to a table, or -1."""
        found = self._snapshot(name).transactions().get(app_id)
        return NEVER if found.isEmpty() else int(found.get())

    def fence(self, name: str, app_id: str) -> Fence:
        """Return the right to be the next to write as `app_id`; of two that hold the same, one alone can commit."""
        return Fence(app_id, self.last_transaction(name, app_id) + 1)

    def append_once(self, frame: DataFrame, name: str, app_id: str) -> None:
        """Append `frame` unless `app_id` has written before: doing it again is right and changes nothing."""
        writer = frame.write.format("delta").mode("append")
        writer.option("txnAppId", app_id).option("txnVersion", 0).save(self.path(name))

    def append(self, frame: DataFrame, name: str, fence: Fence) -> None:
        """Append `frame` as the holder of `fence`.

        Raises:
            Fenced: somebody else used this fence first; nothing was written.
        """
        self._commit(frame.write.format("delta").mode("append"), name, fence)

    def replace(self, frame: DataFrame, name: str, where: str, fence: Fence) -> None:
        """Replace the rows that match `where`, and no other, as the holder of `fence`.

        Raises:
            Fenced: somebody else used this fence first; nothing was written.
        """
        writer = frame.write.format("delta").mode("overwrite").option("replaceWhere", where)
        self._commit(writer, name, fence)

    def _commit(self, writer: Any, name: str, fence: Fence) -> None:
        mine = uuid.uuid4().hex
        fenced = writer.option("txnAppId", fence.app_id).option("txnVersion", fence.version)
        fenced.option("userMetadata", mine).save(self.path(name))
        # Delta drops a version that is not higher than the last without a word: only its history tells.
        recent = DeltaTable.forPath(self.spark, self.path(name)).history(50).where(f"userMetadata = '{mine}'")
        if recent.isEmpty():
            raise Fenced(
                f"{name}: another attempt of {fence.app_id} committed first; nothing was written by this one. "
                "Let the other one end, then run the task again"
            )

    def _snapshot(self, name: str) -> Any:
        jvm: Any = self.spark._jvm  # noqa: SLF001  reason: there is no public way to a table's transactions
        log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(self.spark._jsparkSession, self.path(name))  # noqa: SLF001  reason: as above
        return log.unsafeVolatileSnapshot()
